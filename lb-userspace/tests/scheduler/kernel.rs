//! The schedulers the kernel runs, over maps in ordinary memory.

use lb_common::flow::{FlowKey, Words, load_word};
use lb_common::net::proto;
use lb_common::plan::PlanHead;
use lb_common::server::{self, server_flag};
use lb_common::settings::{Settings, feature, switch};
use lb_ebpf::parse::{self, Fragment};
use lb_ebpf::schedule::{self, Choice, Memory, NOBODY, least, locality, twos};
use lb_ebpf::stage::Stage;
use lb_ebpf::tables::{
    Tables,
    mem::{MemTables, Sizes},
};
use lb_userspace::scheduler::execute::{Packet, Server};
use lb_userspace::scheduler::{Load, Plan};

const SERVICE: u32 = 7;
/// Cell of the plan's cursor.
const START: u32 = 100;
/// The clock at second 0; a jiffy is a second. Early in every life it wraps.
const BEGINNING: u32 = 0u32.wrapping_sub(100_000);

pub(crate) struct Kernel {
    tables: MemTables,
    /// Draws the same lots, earlier.
    twin: MemTables,
}

impl Kernel {
    pub(crate) fn new(since_2026: bool, lblcr_expiration: u64) -> Self {
        let sizes = Sizes { buckets: [1; 3], spill: 1, locality: 16 };
        let [mut tables, twin] = [0, 0].map(|_| MemTables::new(sizes, feature::ALL, BEGINNING, 42));
        tables.put_settings(&Settings {
            hz: 1,
            switches: if since_2026 { switch::OVERHEAD_2026 } else { 0 },
            lblcr_expiration: lblcr_expiration as u32,
            ..Settings::default()
        });
        Self { tables, twin }
    }

    pub(crate) fn put_plan(&mut self, plan: &Plan) {
        let cells: Vec<u64> = [plan.cursor].into_iter().chain(plan.slots.iter().map(|slot| slot.0)).collect();
        self.tables.put_cells(START, &cells);
        let head = PlanHead::new(plan.kind, plan.detail, START, plan.slots.len() as u32);
        self.tables.put_plan(SERVICE, head);
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.tables.cells(START, 1)[0]
    }

    pub(crate) fn put_server(&mut self, id: u32, server: Server) {
        let flags = if server.available { server_flag::AVAILABLE } else { 0 };
        self.tables.put_server(id, &server::Server { flags, weight: server.weight, ..Default::default() });
    }

    pub(crate) fn put_load(&mut self, id: u32, load: Load) {
        let words = self.tables.load_words(id);
        words.store(load_word::ACTIVE, load.active);
        words.store(load_word::INACTIVE, load.inactive);
        words.store(load_word::OVERLOADED, load.overloaded.into());
    }

    /// A number [`Kernel::choose`] will draw, and did not yet.
    pub(crate) fn lot(&self) -> u32 {
        (&self.twin).random()
    }

    pub(crate) fn choose(&mut self, packet: &Packet, now: u64) -> Option<u32> {
        let now = BEGINNING.wrapping_add(now as u32);
        self.tables.set_now(now);
        let tables = &&self.tables;
        let settings = self.tables.settings();
        let packet = parsed(packet);
        let server = match schedule::choose(tables, SERVICE, &packet, Memory::Flow) {
            Choice::Server(server) => server,
            Choice::Stage(Stage::Least) => least::choose(tables, settings, tables.plan(SERVICE)),
            Choice::Stage(Stage::Twos) => twos::choose(tables, settings, SERVICE),
            Choice::Stage(Stage::Locality) => locality::choose(tables, settings, SERVICE, &packet, now),
            Choice::Stage(other) => panic!("{other:?} does not choose"),
        };
        (server != NOBODY).then_some(server)
    }
}

fn parsed(packet: &Packet) -> parse::Packet {
    let ports = FlowKey::ports(packet.source_port.to_be(), 80u16.to_be());
    let key = FlowKey { client: packet.source, vip: packet.destination, ports, protocol: proto::TCP.into() };
    parse::Packet {
        key,
        l3: 14,
        l4: 34,
        length: 40,
        event: 0,
        fragment: Fragment::Whole,
        fragment_id: 0,
        is_v6: false,
        is_error: false,
        quote: 14,
    }
}
