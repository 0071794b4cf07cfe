//! A packet of a scenario: what it met and what came out, held against what was recorded.

use std::collections::BTreeSet;

use lb_common::flow::control;

use super::super::alike::{
    HEAD, IPIP_QUOTE, flow_key, has_source_route, is_refused, is_sent_to_server, is_too_big, reports_mtu,
    same, same_frame, same_sightings, shown, without_mtu,
};
use super::super::director::Ended;
use super::super::entries::Remembered;
use super::super::played::{LeftOut, Wrong};
use super::{Player, from_ms};
use crate::engine::Engine as Datapath;
use crate::traces::engine::{Engine, Verdict};
use crate::traces::event::{Body, PacketEvent};
use crate::traces::host::{self, Answer};
use crate::traces::outcome::{Sighting, To};
use crate::traces::trace::{Frames, Outcome, TraceEvent};

impl<E: Datapath> Player<'_, E> {
    pub(super) fn packet(
        &mut self,
        event: &PacketEvent,
        recorded: &TraceEvent,
        outcome: &Outcome,
        recorded_frames: Option<&Frames>,
    ) {
        let frames = match self.driver.frames(event) {
            Ok(frames) => frames,
            Err(error) => {
                let result = Err(Wrong::Different(error.to_string()));
                return self.judge(|played| &mut played.decisions, Some(recorded), result);
            }
        };
        let mut wanted: Vec<Vec<Sighting>> = match outcome {
            Outcome::One(all) => vec![all.clone()],
            Outcome::Each(each) => each.clone(),
        };
        if wanted.iter().flatten().any(|sighting| sighting.to == To::SendFailed) {
            let left_out = Err(Wrong::LeftOut(LeftOut::NotSent));
            return self.judge(|played| &mut played.decisions, Some(recorded), left_out);
        }
        let mut wanted_frames = recorded_frames.map_or(&[][..], |frames| &frames.out).to_vec();
        // What came out late is told with the event after.
        if let Some((sighting, frame)) =
            self.trace.events.get(recorded.i + 1).and_then(|next| next.late.clone())
        {
            wanted.last_mut().expect("one list per frame").push(sighting);
            wanted_frames.push(frame);
        }
        // A frame that quotes what left this director has what that one drew at random.
        let quotes_own = matches!(&event.body, Body::Packet(packet) if packet.inner_last);
        if let Some(recorded_frames) = recorded_frames
            && !quotes_own
            && recorded_frames.sent != frames
        {
            let what = "the frames sent are not those of the recording".to_owned();
            self.judge(|played| &mut played.frames, Some(recorded), Err(Wrong::Different(what)));
        }
        if reports_mtu(event) {
            let Body::Packet(packet) = &event.body else { return };
            self.short_tunnel_error = packet.inner_len.unwrap_or(28) < IPIP_QUOTE;
        }
        let quotes_other = recorded_frames.is_some_and(|recorded| recorded.sent != frames);
        let is_fragmented = !event.frag.is_empty();
        let key = flow_key(event);
        let mut rest = wanted_frames.as_slice();
        let mut reached = BTreeSet::new();
        for (at, frame) in frames.iter().enumerate() {
            let before = key.and_then(|key| self.director.find(&key));
            let got = self.send(frame);
            if let (Some(before), Some(key)) = (before, key) {
                self.note_reuse(before, self.director.find(&key));
            }
            reached.extend(got.iter().flatten().map(|(sighting, _)| sighting.to));
            let Some(wanted) = wanted.get(at) else {
                let result = Err(Wrong::Different(format!("frame {at} is not in the trace")));
                self.judge(|played| &mut played.decisions, Some(recorded), result);
                continue;
            };
            let (wanted_frames, after) = rest.split_at(wanted.len().min(rest.len()));
            rest = after;
            let mut result = match &got {
                Some(got) => same_sightings(wanted, got),
                None if wanted.iter().all(|sighting| sighting.to == To::Router) => {
                    Err(Wrong::LeftOut(LeftOut::Stack))
                }
                None => Err(Wrong::Different(format!("expected {}, got passed", shown(wanted)))),
            };
            if let (true, [wanted], Some([(got, _)])) = (self.by_lot, wanted.as_slice(), got.as_deref())
                && let (To::Server(one), To::Server(other)) = (wanted.to, got.to)
                && wanted.via == got.via
            {
                if before.is_none() {
                    self.lots.count(one, other);
                }
                result = Err(Wrong::LeftOut(LeftOut::Lot));
            }
            if let Err(Wrong::Different(_)) = &result {
                if is_fragmented {
                    result = Err(Wrong::LeftOut(LeftOut::Fragments));
                } else if got.as_ref().is_some_and(|got| is_refused(wanted, got)) {
                    result = Err(Wrong::LeftOut(LeftOut::Fragmenting));
                } else if got.as_ref().is_some_and(|got| got.is_empty() || is_sent_to_server(got))
                    && wanted.is_empty()
                    && has_source_route(event)
                {
                    result = Err(Wrong::LeftOut(LeftOut::SourceRoute));
                } else if self.short_tunnel_error && got.as_ref().is_some_and(|got| is_too_big(got)) {
                    result = Err(Wrong::LeftOut(LeftOut::TunnelMtu));
                } else if let Some(why) = key.and_then(|key| self.excuse(&key, from_ms(recorded.t))) {
                    result = Err(Wrong::LeftOut(why));
                }
            }
            if let (Some(got), Ok(()), true) = (&got, &result, recorded_frames.is_some()) {
                for ((sighting, got), wanted) in got.iter().zip(wanted_frames) {
                    let mut result = same_frame(wanted, got, &sighting.via);
                    if result.is_err() && reports_mtu(event) {
                        // If this director refused what the recorded one let through, it quotes an earlier packet.
                        let shown = if self.short_tunnel_error || quotes_other { HEAD } else { usize::MAX };
                        let [wanted, got] = [wanted, got].map(|frame| without_mtu(frame, shown));
                        result = same_frame(&wanted, &got, &sighting.via)
                            .and(Err(Wrong::LeftOut(LeftOut::TunnelMtu)));
                    }
                    self.judge(|played| &mut played.frames, Some(recorded), result);
                }
            } else if let (Err(Wrong::LeftOut(why)), true) = (&result, recorded_frames.is_some()) {
                let left_out = Err(Wrong::LeftOut(*why));
                self.judge(|played| &mut played.frames, Some(recorded), left_out);
            }
            self.judge(|played| &mut played.decisions, Some(recorded), result);
        }
        if is_fragmented && event.frag_order.is_none() && key.is_some() && !reached.contains(&To::Router) {
            // However they are cut, fragments that come in order reach the server the whole reached.
            let wanted: BTreeSet<To> = wanted.iter().flatten().map(|sighting| sighting.to).collect();
            let result = same("hosts reached by fragments", &wanted, &reached);
            self.judge(|played| &mut played.decisions, Some(recorded), result);
        }
    }

    /// What came out after a frame; none if the host's stack has it and it is not known what that answers.
    fn send(&mut self, frame: &[u8]) -> Option<Vec<(Sighting, Vec<u8>)>> {
        let sent = match self.director.receive(frame) {
            Verdict::Sent(sent) => sent,
            Verdict::Passed => match host::answer(frame) {
                Answer::Frame(answer) => vec![answer],
                Answer::Nothing => Vec::new(),
                Answer::Unknown => return None,
            },
        };
        let mut seen = Vec::new();
        for out in sent {
            if let Some(sighting) = self.segment.classify(&out, frame) {
                self.driver.saw(&out, &sighting);
                seen.push((sighting, out));
            }
        }
        Some(seen)
    }

    /// Notes a flow that a packet put another in the place of.
    fn note_reuse(&mut self, before: Remembered, after: Option<Remembered>) {
        let place =
            |what: Remembered| what.flow.control & !(control::STATE | control::ACTIVE | control::CONFIRMED);
        if after.map(place) != Some(place(before)) {
            let at = self.director.at();
            self.director.ended.push(Ended { what: Remembered { timeout: 0, ..before }, at });
        }
    }
}
