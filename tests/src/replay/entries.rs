//! What a director remembers, read from its tables: flows and persistence templates, each with its end.

use lb_common::flow::{Buckets, Entry, FlowKey, Layout, Slab, Templates, WAYS, control, home, lookup, meta};
use lb_common::hash::Seed;
use lb_common::settings::{Settings, timeout};

use crate::engine::Engine;
use crate::state::Flow;

/// Ends of idle times are rounded up by fewer jiffies than this.
pub(super) const ROUNDED: u32 = 64;

/// A flow or a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) flow: Flow,
    pub(super) is_template: bool,
    /// Jiffies it may be idle.
    pub(super) timeout: u32,
}

impl Remembered {
    pub(super) fn is_active(&self) -> bool {
        !self.is_template && self.flow.control & control::ACTIVE != 0
    }

    pub(super) fn is_assured(&self) -> bool {
        self.flow.meta & meta::ASSURED != 0
    }

    /// Jiffies left; negative if it ended.
    pub(super) fn left(&self, now: u32) -> i32 {
        self.flow.expires.wrapping_sub(now) as i32
    }
}

/// Everything remembered, ended or not.
pub(super) fn all<E: Engine>(engine: &E, settings: &Settings) -> Vec<Remembered> {
    let mut all = engine.with_tables(|tables| {
        let flows = crate::state::flows(&tables.v4).into_iter().chain(crate::state::flows(&tables.v6));
        let mut all: Vec<Remembered> = flows.map(|flow| of(flow, settings)).collect();
        for bucket in (0..tables.templates.buckets()).filter_map(|index| tables.templates.bucket(index)) {
            for (entry, key) in (0..WAYS).filter_map(|way| Entry::<Templates, _>::at(bucket, way)) {
                let flow = Flow {
                    key,
                    server: meta::server(entry.meta),
                    state: 0,
                    expires: entry.expires(),
                    control: entry.control,
                    meta: entry.meta,
                };
                let timeout = entry.extra(Templates::TIMEOUT);
                all.push(Remembered { flow, is_template: true, timeout });
            }
        }
        all
    });
    all.extend(engine.spills().into_iter().map(|(key, words)| of(Flow::in_spill(key, &words), settings)));
    all
}

fn of(flow: Flow, settings: &Settings) -> Remembered {
    let at = timeout::index(flow.key.protocol as u8, flow.state) as usize;
    Remembered { flow, is_template: false, timeout: settings.timeouts[at] }
}

/// The flow with this key.
pub(super) fn find<E: Engine>(engine: &E, settings: &Settings, key: &FlowKey) -> Option<Remembered> {
    let found = engine.with_tables(|tables| {
        if key.client.is_v4() {
            look(&tables.v4, &settings.seed, key)
        } else {
            look(&tables.v6, &settings.seed, key)
        }
    });
    found.map(|flow| of(flow, settings))
}

fn look<L: Layout>(table: &Slab<'_, L>, seed: &Seed, key: &FlowKey) -> Option<Flow> {
    let home = home::<L>(seed, key, table.buckets());
    lookup(table, &home, key).map(|entry| Flow {
        key: *key,
        server: meta::server(entry.meta),
        state: control::state(entry.control),
        expires: entry.expires(),
        control: entry.control,
        meta: entry.meta,
    })
}
