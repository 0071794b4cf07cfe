//! Persistence templates: how many flows each has, and which of them end.

use super::{Rules, Tables, Tally};
use lb_common::flow::{
    self, Buckets, Entry, FlowKey, Home, Shared, Slab, Templates, WAYS, control, is_past, meta,
};
use std::ops::Range;

/// What an ended template with live flows lives on by, in seconds (IPVS: `ip_vs_conn_expire`).
const ENDED_SECONDS: u32 = 60;

/// Flows of each template, counted in this pass, and what the datapath had counted when it began.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// By way of the table: control word and count at the beginning.
    before: Vec<(u32, u32)>,
    counted: Vec<u32>,
}

fn ways(table: &Slab<'_, Templates>) -> usize {
    table.buckets() as usize * WAYS as usize
}

fn place(bucket: u32, way: u32) -> usize {
    bucket as usize * WAYS as usize + way as usize
}

impl Children {
    /// Notes the counts before a pass looks at the first flow.
    pub fn begin(table: &Slab<'_, Templates>) -> Self {
        let mut children = Self { before: vec![(0, 0); ways(table)], counted: vec![0; ways(table)] };
        for bucket in 0..table.buckets() {
            let Some(words) = table.bucket(bucket) else { break };
            for way in 0..WAYS {
                if let Some((entry, _)) = Entry::<Templates, _>::at(words, way) {
                    let count = entry.extra(Templates::CHILDREN);
                    children.before[place(bucket, way)] = (entry.control, count);
                }
            }
        }
        children
    }

    /// Counts a flow for the template it belongs to, if that is still there. A template that was made anew for
    /// another server since is not the flow's.
    pub(super) fn count(&mut self, tables: &Tables<'_>, rules: &Rules, server: u32, key: &FlowKey) {
        let id = rules.server(server).service;
        let Some(service) = rules.services.get(id as usize) else { return };
        let key = service.template_key(id, key);
        let home = flow::home::<Templates>(&rules.seed, &key, tables.templates.buckets());
        for bucket in [home.first, home.second] {
            let only = Home { first: bucket, second: bucket, ..home };
            let found: Option<Entry<Templates, Shared<'_>>> = flow::lookup(&tables.templates, &only, &key);
            if let Some(entry) = found.filter(|entry| meta::server(entry.meta) == server) {
                if let Some(count) = self.counted.get_mut(place(bucket, control::way(entry.control))) {
                    *count += 1;
                }
                return;
            }
        }
    }

    /// The count to correct by: what was counted, and what the datapath added meanwhile. `None` for a template that
    /// came during the pass, of which only the datapath knows.
    fn correction(&self, at: usize, entry: &Entry<Templates, Shared<'_>>) -> Option<u32> {
        let (control, before) = *self.before.get(at)?;
        let now = entry.extra(Templates::CHILDREN);
        (control == entry.control).then(|| {
            let since = now.wrapping_sub(before);
            self.counted[at].wrapping_add(since).wrapping_sub(now)
        })
    }
}

/// Walks the buckets `range` of the templates, after all flows were counted: puts the counts right, takes out what has
/// ended, and lets live on by the minute what ended while it had flows.
pub fn sweep_templates(
    range: Range<u32>,
    now: u32,
    tables: &Tables<'_>,
    rules: &Rules,
    tally: &mut Tally,
    children: &Children,
) {
    for bucket in range {
        let Some(words) = tables.templates.bucket(bucket) else { return };
        for way in 0..WAYS {
            let Some((entry, _)) = Entry::<Templates, _>::at(words, way) else { continue };
            if let Some(delta) = children.correction(place(bucket, way), &entry).filter(|delta| *delta != 0) {
                entry.add_extra(Templates::CHILDREN, delta);
            }
            let server = meta::server(entry.meta);
            let ended = is_past(entry.expires(), now);
            let has_flows = entry.extra(Templates::CHILDREN) != 0;
            let over = (ended && !has_flows) || rules.server(server).evict;
            if over && entry.remove() {
                if let Some(load) = tables.load(server) {
                    flow::unbind_template(load, rules.server(server).thresholds.as_ref());
                }
                tally.removed(server);
                continue;
            }
            if over {
                continue;
            }
            if ended {
                entry.set_extra(Templates::TIMEOUT, ENDED_SECONDS * rules.hz);
                entry.set_expires(now.wrapping_add(ENDED_SECONDS * rules.hz));
            }
            tally.live.templates += 1;
            tally.server(server).templates += 1;
        }
    }
}
