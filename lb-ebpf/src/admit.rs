//! Who may open a flow: the deny list, the limits of new flows. Each is compiled out when it is not configured.

use crate::{
    parse::Packet,
    tables::{Allowance, Tables},
    verdict::Stop,
};
use lb_common::{
    counters::{Note, Reason},
    settings::{Settings, feature},
};

/// Stops what comes from a denied prefix. Asked only about packets for a virtual service: what is for somebody else
/// is none of the director's business.
#[inline(always)]
pub fn source<T: Tables>(tables: &T, packet: &Packet) -> Result<(), Stop> {
    if tables.features() & feature::DENY != 0 && tables.is_denied(&packet.key.client) {
        return Err(Reason::DroppedDenied.into());
    }
    Ok(())
}

/// Stops a new flow of a source prefix that opens too many.
#[inline(always)]
pub fn opening<T: Tables>(tables: &T, settings: &Settings, packet: &Packet, now: u32) -> Result<(), Stop> {
    if tables.features() & feature::SOURCE_LIMIT == 0 {
        return Ok(());
    }
    let mask = if packet.is_v6 { &settings.source_mask_v6 } else { &settings.source_mask_v4 };
    let opened = tables.source_opened(&packet.key.client.masked(mask), second(settings, now));
    if opened > settings.source_flows_per_second {
        return Err(Reason::DroppedSourceLimit.into());
    }
    Ok(())
}

/// True if one more new flow may be remembered on this CPU in this second.
#[inline(always)]
pub fn may_remember<T: Tables>(tables: &T, settings: &Settings, now: u32) -> bool {
    if tables.features() & feature::ADMISSION == 0 {
        return true;
    }
    let allowed = tables.allow(Allowance::NewFlows, settings.new_flows_per_second, second(settings, now));
    if !allowed {
        tables.note(Note::OverAdmission);
    }
    allowed
}

/// How long after a flow was forwarded without being remembered packets of unknown flows are taken for its next
/// ones, in seconds.
const FORGETFUL_SECONDS: u32 = 60;

/// True if this CPU lately forwarded flows it could not remember: then packets that open nothing may belong to them.
#[inline(always)]
pub fn is_forgetful<T: Tables>(tables: &T, settings: &Settings, now: u32) -> bool {
    let forgot = tables.forgot();
    // One more on either side: what was noted may be the second to come, see `forget`.
    forgot != 0 && second(settings, now).wrapping_sub(forgot).wrapping_add(1) <= FORGETFUL_SECONDS + 1
}

/// Notes that a flow goes unremembered.
#[inline(always)]
pub fn forget<T: Tables>(tables: &T, settings: &Settings, now: u32) {
    // 0 says never, so the lowest bit is set: a second late at the most.
    tables.forget(second(settings, now) | 1);
}

/// A count of seconds to window by. Not a clock: it jumps when jiffies wrap.
#[inline(always)]
pub fn second(settings: &Settings, now: u32) -> u32 {
    // The control plane writes what it measured; 0 is a map not yet written.
    now.checked_div(settings.hz).unwrap_or(0)
}
