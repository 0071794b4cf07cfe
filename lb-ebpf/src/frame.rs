//! A bounds-checked window on a packet's bytes, and the way to make it longer or shorter at either end.
//! The library's only unsafe code.

use core::marker::PhantomData;

/// What the driver (or, on the host, a buffer) can do for a packet: move its ends, and reach what lies in further buffers.
pub trait Room {
    /// Moves the front by `delta` bytes, negative to grow. The new ends, or `None` if there is no room.
    fn adjust_head(&mut self, delta: i32) -> Option<Ends>;

    /// Moves the end by `delta` bytes, positive to grow. The new ends, or `None` if there is no room.
    fn adjust_tail(&mut self, delta: i32) -> Option<Ends>;

    /// Bytes of the whole packet, those in further buffers included.
    fn total(&self) -> usize;

    /// The value at `at`, in whichever buffers it lies; `None` past the end of the packet, or from byte 65,536 on.
    fn load<T: Wire>(&self, at: usize) -> Option<T>;
}

/// First byte of the packet and the byte behind its last (of the first buffer).
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub start: *mut u8,
    pub end: *mut u8,
}

/// Types that may be read from and written to a packet at any place: every bit pattern is a value.
pub trait Wire: Copy {}

impl Wire for u8 {}
impl Wire for u16 {}
impl Wire for u32 {}
impl Wire for u64 {}
impl<const N: usize> Wire for [u8; N] {}
impl<const N: usize> Wire for [u32; N] {}
impl<const N: usize> Wire for [u64; N] {}
impl Wire for lb_common::net::Mac {}

/// The first `N` bytes of a frame, which are known to be there: looked for once, read and written without asking again.
#[derive(Debug)]
pub struct Head<'a, const N: usize> {
    start: *mut u8,
    frame: PhantomData<&'a mut [u8; N]>,
}

impl<const N: usize> Head<'_, N> {
    /// The value at `AT`, as it stands in memory.
    #[inline(always)]
    pub fn read<T: Wire, const AT: usize>(&self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: the frame has `N` bytes and lives; the assertion says that these are among them.
        unsafe { load(self.start.add(AT).cast::<T>()) }
    }

    /// Writes `value` at `AT`.
    #[inline(always)]
    pub fn write<T: Wire, const AT: usize>(&mut self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: as for `read`, and the frame is borrowed for writing.
        unsafe { store(self.start.add(AT).cast::<T>(), value) }
    }
}

/// A packet from its Ethernet header on.
#[derive(Debug)]
pub struct Frame<R> {
    ends: Ends,
    room: R,
}

impl<R: Room> Frame<R> {
    /// # Safety
    /// `ends` must enclose memory that is valid for reads and writes as long as the frame lives, that nobody else
    /// refers to, and `room` must return such ends as well.
    #[inline(always)]
    pub unsafe fn new(ends: Ends, room: R) -> Self {
        Self { ends, room }
    }

    /// The value at `at`, as it stands in memory; `None` past the end of the first buffer.
    #[inline(always)]
    pub fn read<T: Wire>(&self, at: usize) -> Option<T> {
        let place = self.place::<T>(at)?;
        // SAFETY: `place` checked that the bytes lie before the end; `T` takes every bit pattern. Volatile, so that
        // the value is fetched where it is used: kept in a register across branches, the verifier would follow its
        // refinements down every path.
        Some(unsafe { load(place) })
    }

    /// As [`Frame::read`], and further buffers are read too. Costs a helper call.
    #[inline(always)]
    pub fn fetch<T: Wire>(&self, at: usize) -> Option<T> {
        self.room.load(at)
    }

    /// Writes `value` at `at`; `None` past the end of the first buffer, with nothing written.
    #[inline(always)]
    pub fn write<T: Wire>(&mut self, at: usize, value: T) -> Option<()> {
        let place = self.place::<T>(at)?;
        // SAFETY: `place` checked that the bytes lie before the end, and `&mut self` makes them ours.
        unsafe { store(place, value) };
        Some(())
    }

    #[inline(always)]
    fn place<T>(&self, at: usize) -> Option<*mut T> {
        let place = self.ends.start.wrapping_add(at);
        // The verifier learns the packet's range from exactly this comparison.
        if place.wrapping_add(size_of::<T>()) > self.ends.end { None } else { Some(place.cast()) }
    }

    /// The first `N` bytes; `None` if there are fewer.
    #[inline(always)]
    pub fn head<const N: usize>(&mut self) -> Option<Head<'_, N>> {
        let place = self.place::<[u8; N]>(0)?;
        Some(Head { start: place.cast(), frame: PhantomData })
    }

    /// Bytes in the first buffer, which is the whole packet unless the driver splits jumbo frames.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.ends.end as usize - self.ends.start as usize
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the whole packet. Costs a helper call where [`Frame::len`] costs nothing.
    #[inline(always)]
    pub fn total(&self) -> usize {
        self.room.total()
    }

    /// True if the packet reaches to byte `end`. A jumbo frame's rest may lie in further buffers; only then is the
    /// driver asked.
    #[inline(always)]
    pub fn holds(&self, end: usize) -> bool {
        end <= self.len() || end <= self.total()
    }

    /// Adds `bytes` at the front, or takes them away if negative. What is added is undefined until written. `None` if the
    /// driver has no headroom.
    #[inline(always)]
    pub fn grow_front(&mut self, bytes: i32) -> Option<()> {
        if bytes != 0 {
            self.ends = self.room.adjust_head(-bytes)?;
        }
        Some(())
    }

    /// Cuts or extends the packet at its end by `delta` bytes.
    #[inline(always)]
    pub fn adjust_end(&mut self, delta: i32) -> Option<()> {
        self.ends = self.room.adjust_tail(delta)?;
        Some(())
    }
}

/// # Safety
/// `place` must be valid for reads of `T`; it need not be aligned.
#[inline(always)]
unsafe fn load<T: Copy>(place: *const T) -> T {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the kernel lets programs read packets at any alignment where the machine does, and its verifier
    // refuses the program where it does not.
    return unsafe { core::ptr::read_volatile(place) };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    return unsafe { core::ptr::read_unaligned(place) };
}

/// # Safety
/// `place` must be valid for writes of `T`; it need not be aligned.
#[inline(always)]
unsafe fn store<T: Copy>(place: *mut T, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as for `load`.
    unsafe {
        core::ptr::write_volatile(place, value)
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's.
    unsafe {
        core::ptr::write_unaligned(place, value)
    };
}

#[cfg(feature = "host")]
pub use host::{Buffer, HEADROOM, Moved};

/// A packet in ordinary memory.
#[cfg(feature = "host")]
mod host {
    use super::{Ends, Frame, Room, Wire};

    /// Bytes in front of a packet, as drivers leave them (`XDP_PACKET_HEADROOM`).
    pub const HEADROOM: usize = 256;
    /// Bytes behind it.
    const TAILROOM: usize = 128;
    /// What the kernel keeps at the very front for itself (`struct xdp_frame`).
    const RESERVED: usize = 40;
    /// Bytes of a packet that lie in the first buffer: what headroom and the kernel's accounts at its end (`struct
    /// skb_shared_info`) leave of a page. The others lie in further ones.
    const FIRST_BUFFER: usize = 4096 - HEADROOM - 320;
    /// Least the kernel lets a program leave: an Ethernet header.
    const LEAST: usize = 14;
    /// What stands where nobody has written.
    const JUNK: u8 = 0xa5;

    /// A packet with room to grow at either end. Its first buffer lies alone in an allocation of exactly its length and
    /// moves to another with its ends, so that AddressSanitizer and Miri see each access beyond it, by a byte even, and
    /// each through a pointer from before.
    #[derive(Clone, Debug)]
    pub struct Buffer {
        first: Vec<u8>,
        /// What lies in further buffers.
        rest: Vec<u8>,
        /// Bytes that may be added in front.
        headroom: usize,
        /// Bytes that may be added behind.
        tailroom: usize,
    }

    impl Buffer {
        pub fn new(packet: &[u8]) -> Self {
            Self::split(packet, FIRST_BUFFER)
        }

        /// With so many bytes in the first buffer, as some drivers leave hardly more than headers there.
        pub fn split(packet: &[u8], first: usize) -> Self {
            let (first, rest) = packet.split_at(first.min(packet.len()));
            let (first, rest) = (first.to_vec(), rest.to_vec());
            Self { first, rest, headroom: HEADROOM - RESERVED, tailroom: TAILROOM }
        }

        /// Lends the packet out as a frame; it is afterwards as long as the frame then was.
        pub fn lend<T>(&mut self, borrow: impl FnOnce(&mut Frame<Moved<'_>>) -> T) -> T {
            let mut room = Moved(self);
            let ends = room.ends();
            // SAFETY: the ends are those of the first buffer, which is borrowed until the frame is gone, and touched by
            // `Moved` only to move it, whereupon the frame gets the new ends.
            let mut frame = unsafe { Frame::new(ends, room) };
            borrow(&mut frame)
        }

        /// The whole packet.
        pub fn bytes(&self) -> Vec<u8> {
            [self.first.as_slice(), &self.rest].concat()
        }

        /// The packet with so many bytes more at each end, fewer if negative; `None`, and nothing done, if it cannot be.
        fn adjust(&mut self, front: isize, back: isize) -> Option<()> {
            let headroom = self.headroom.checked_add_signed(-front)?;
            let tailroom = self.tailroom.checked_add_signed(-back)?;
            let before = self.bytes();
            let len = before.len().checked_add_signed(front + back)?;
            // Bytes that were in the first buffer stay there, and so are new ones in front of them.
            let all = if self.rest.is_empty() { len } else { self.first.len().checked_add_signed(front)? };
            let first = all.min(len);
            if first < LEAST {
                return None;
            }
            let kept = (-front).max(0) as usize..before.len() - (-back).max(0) as usize;
            let at = front.max(0) as usize;
            let mut memory = vec![JUNK; len];
            memory[at..at + kept.len()].copy_from_slice(&before[kept]);
            let (first, rest) = memory.split_at(first);
            *self = Self { first: first.to_vec(), rest: rest.to_vec(), headroom, tailroom };
            Some(())
        }

        fn byte(&self, at: usize) -> Option<u8> {
            let buffer = if at < self.first.len() { &self.first } else { &self.rest };
            let at = if at < self.first.len() { at } else { at - self.first.len() };
            buffer.get(at).copied()
        }
    }

    /// The ends of a [`Buffer`]'s packet, moved as the kernel's helpers would move them.
    #[derive(Debug)]
    pub struct Moved<'a>(&'a mut Buffer);

    impl Moved<'_> {
        fn ends(&mut self) -> Ends {
            let first = &mut self.0.first;
            let start = first.as_mut_ptr();
            Ends { start, end: start.wrapping_add(first.len()) }
        }
    }

    impl Room for Moved<'_> {
        fn adjust_head(&mut self, delta: i32) -> Option<Ends> {
            self.0.adjust(-(delta as isize), 0)?;
            Some(self.ends())
        }

        fn adjust_tail(&mut self, delta: i32) -> Option<Ends> {
            self.0.adjust(0, delta as isize)?;
            Some(self.ends())
        }

        fn total(&self) -> usize {
            self.0.first.len() + self.0.rest.len()
        }

        fn load<T: Wire>(&self, at: usize) -> Option<T> {
            if at > u16::MAX.into() {
                return None;
            }
            let bytes = (0..size_of::<T>()).map(|i| self.0.byte(at + i)).collect::<Option<Vec<u8>>>()?;
            // SAFETY: as many bytes as a `T` has, which takes every bit pattern.
            Some(unsafe { super::load(bytes.as_ptr().cast()) })
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_packet_grows_into_the_headroom_the_kernel_leaves_and_no_further() {
            let mut buffer = Buffer::new(&[7; 20]);
            buffer.lend(|frame| {
                assert_eq!(frame.grow_front((HEADROOM - RESERVED) as i32), Some(()));
                assert_eq!(frame.grow_front(1), None);
                assert_eq!(frame.write(0, 1u8), Some(()));
            });
            assert_eq!((buffer.bytes().len(), buffer.bytes()[0], buffer.bytes()[1]), (236, 1, JUNK));
            assert_eq!(buffer.bytes()[216..], [7; 20]);
        }

        #[test]
        fn a_packet_is_cut_down_to_an_ethernet_header_and_no_further() {
            let mut buffer = Buffer::new(&[7; 20]);
            buffer.lend(|frame| {
                assert_eq!(frame.adjust_end(-7), None);
                assert_eq!(frame.adjust_end(-6), Some(()));
                assert_eq!((frame.len(), frame.total()), (14, 14));
                assert_eq!(frame.read::<u8>(13), Some(7));
                assert_eq!(frame.read::<u16>(13), None);
                assert_eq!(frame.write(14, 1u8), None);
            });
            assert_eq!(buffer.bytes(), [7; 14]);
        }

        #[test]
        fn of_a_packet_in_several_buffers_the_first_can_be_written_and_all_be_read() {
            let bytes: Vec<u8> = (0..100).collect();
            let mut buffer = Buffer::split(&bytes, 40);
            buffer.lend(|frame| {
                assert_eq!((frame.len(), frame.total()), (40, 100));
                assert_eq!((frame.holds(100), frame.holds(101)), (true, false));
                assert_eq!((frame.read::<u16>(38), frame.read::<u16>(39)), (Some(0x2726u16.to_le()), None));
                assert_eq!((frame.write(40, 1u8), frame.fetch::<u16>(39)), (None, Some(0x2827u16.to_le())));
                assert_eq!((frame.fetch::<u8>(99), frame.fetch::<u16>(99)), (Some(99), None));
                // As the kernel: what is cut away goes from the end, what is taken away leaves an Ethernet header.
                assert_eq!(frame.adjust_end(-70), Some(()));
                assert_eq!((frame.len(), frame.total(), frame.fetch::<u8>(30)), (30, 30, None));
                assert_eq!((frame.grow_front(-17), frame.grow_front(-16)), (None, Some(())));
            });
            assert_eq!(buffer.bytes(), &bytes[16..30]);
        }
    }
}
