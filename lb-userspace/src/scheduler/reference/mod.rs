//! IPVS's schedulers read plainly: one service with live counters, walked server by server. No plans, no tables but
//! IPVS's own. For tests and simulation; the daemon does not use it.
//!
//! Not here: lblc's and lblcr's collection of old destinations, which runs on a timer.

mod cycle;
mod hash;
mod least;
mod locality;

use super::execute::Packet;
use super::{Edit, Entry, Load};
use crate::model::{Scheduler, SchedulerFlags};

/// A destination of IPVS's list.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    pub entry: Entry,
    pub load: Load,
}

impl Server {
    fn weight(&self) -> u32 {
        self.entry.live_weight()
    }

    fn is_ok(&self) -> bool {
        !self.load.overloaded && self.weight() > 0
    }
}

/// A virtual service with its scheduler's state.
#[derive(Clone, Debug)]
pub struct Service {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    /// The newest first.
    list: Vec<Server>,
    /// Removed servers, with the weight and counters they had.
    trash: Vec<Server>,
    rr: cycle::Rr,
    wrr: cycle::Wrr,
    table: hash::Table,
    cache: locality::Cache,
    /// Seconds; see [`super::execute::Datapath`].
    pub lblcr_expiration: u64,
    pub since_2026: bool,
}

/// What a choice needs besides the service.
pub struct Moment<'a> {
    pub packet: Packet,
    /// Seconds.
    pub now: u64,
    /// A number from 0 to the given one, both included.
    pub draw: &'a mut dyn FnMut(u64) -> u64,
}

impl Service {
    /// A service without servers.
    pub fn new(scheduler: Scheduler, flags: SchedulerFlags) -> Self {
        Self {
            scheduler,
            flags,
            list: Vec::new(),
            trash: Vec::new(),
            rr: cycle::Rr::default(),
            wrr: cycle::Wrr::default(),
            table: hash::Table::default(),
            cache: locality::Cache::default(),
            lblcr_expiration: 86_400,
            since_2026: false,
        }
    }

    pub fn servers(&self) -> &[Server] {
        &self.list
    }

    /// The counters of a server, removed ones included.
    ///
    /// # Panics
    /// If there never was one with this id.
    pub fn load_mut(&mut self, id: u32) -> &mut Load {
        let mut all = self.list.iter_mut().chain(&mut self.trash);
        &mut all.find(|server| server.entry.id == id).expect("a server that was added").load
    }

    pub fn edit(&mut self, edit: &Edit) {
        match *edit {
            Edit::Add(entry) => {
                let known = self.trash.iter().position(|server| server.entry.id == entry.id);
                let load = known.map_or(Load::default(), |at| self.trash.remove(at).load);
                let entry = Entry { last_weight: entry.weight, ..entry };
                self.list.insert(0, Server { entry, load });
            }
            Edit::Change(entry) => {
                let server = self.list.iter_mut().find(|server| server.entry.id == entry.id);
                let server = server.expect("a server in the list");
                let last_weight = if entry.weight > 0 { entry.weight } else { server.entry.last_weight };
                server.entry = Entry { last_weight, ..entry };
            }
            Edit::Remove(id) => {
                let at = self.place(id).expect("a server in the list");
                self.rr.removed(&self.list, at);
                let server = self.list.remove(at);
                self.trash.push(server);
            }
        }
        self.wrr.edited(&self.list);
        self.table = match self.scheduler {
            Scheduler::Sh => hash::Table::sh(&self.list),
            Scheduler::Dh => hash::Table::dh(&self.list),
            Scheduler::Mh => hash::Table::mh(&self.list),
            _ => hash::Table::default(),
        };
    }

    /// Server for a new flow. The flow is not counted: that is the caller's.
    pub fn choose(&mut self, moment: &mut Moment) -> Option<u32> {
        let list = &self.list;
        let at = match self.scheduler {
            Scheduler::Rr => self.rr.choose(list),
            Scheduler::Wrr => self.wrr.choose(list),
            Scheduler::Lc => least::lc(list, self.since_2026),
            Scheduler::Wlc => least::wlc(list, self.since_2026),
            Scheduler::Sed => least::sed(list),
            Scheduler::Nq => least::nq(list),
            Scheduler::Fo => least::fo(list),
            Scheduler::Ovf => least::ovf(list),
            Scheduler::Twos => least::twos(list, self.since_2026, moment.draw),
            Scheduler::Sh => self.table.sh_choose(list, &moment.packet, self.flags),
            Scheduler::Dh => self.table.dh_choose(list, &moment.packet),
            Scheduler::Mh => self.table.mh_choose(list, &moment.packet, self.flags),
            Scheduler::Lblc => return self.lblc(moment),
            Scheduler::Lblcr => return self.lblcr(moment),
        };
        at.map(|at| self.list[at].entry.id)
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.list.iter().position(|server| server.entry.id == id)
    }
}
