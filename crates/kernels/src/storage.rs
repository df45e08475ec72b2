//! Where packed weights lie: on Linux in huge pages, elsewhere on the heap.
//!
//! A token reads every weight once, so the processor needs a new page's address every 4 KiB, and on a virtual machine
//! looks it up in two sets of tables. In pages of 2 MiB one core of a Zen 4 server reads weights at 38 GB/s where it read
//! 21, two at 44 where they read 33. Loading gains too: a page is one fault and one clearing of 2 MiB, not 512 faults.
//!
//! A page for each matrix would waste half of it, so matrices share *regions*: address space that is asked to be in huge
//! pages before it is touched, and taken from the system as it is filled. What a dropped matrix leaves is used again.

use std::ops::{Deref, DerefMut};

/// Types of which every bit pattern is a value, and that have no padding.
///
/// # Safety
/// Both must hold; and the alignment is at most 64.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: a number has no padding, and any bits are one.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: an array of such.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// A slice that owns its memory.
pub(crate) struct Storage<T: Plain>(Place<T>);

enum Place<T: Plain> {
    Heap(Vec<T>),
    #[cfg(target_os = "linux")]
    Region(regions::Owned<T>),
}

impl<T: Plain> Storage<T> {
    /// `n` values whose bytes are 0.
    pub(crate) fn zeroed(n: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(owned) = regions::Owned::zeroed(n) {
            return Self(Place::Region(owned));
        }
        // SAFETY: any bits are a value (`Plain`).
        let zero: T = unsafe { std::mem::zeroed() };
        Self(Place::Heap(vec![zero; n]))
    }

    /// So many times `n` values whose bytes are 0, which [`concat`](Self::concat) puts together without a copy where they
    /// lie in a region.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn zeroed_neighbours(n: usize, count: usize) -> Vec<Self> {
        #[cfg(target_os = "linux")]
        if let Some(parts) = regions::Owned::zeroed_neighbours(n, count) {
            return parts.into_iter().map(|part| Self(Place::Region(part))).collect();
        }
        (0..count).map(|_| Self::zeroed(n)).collect()
    }

    /// The values of all `parts`, one after the other.
    pub(crate) fn concat(parts: Vec<Self>) -> Self {
        #[cfg(target_os = "linux")]
        let parts = match regions::Owned::join(parts) {
            Ok(whole) => return Self(Place::Region(whole)),
            Err(parts) => parts,
        };
        Self::copied(&parts)
    }

    fn copied(parts: &[Self]) -> Self {
        let mut whole = Self::zeroed(parts.iter().map(|part| part.len()).sum());
        let mut rest = &mut *whole;
        for part in parts {
            let (own, others) = rest.split_at_mut(part.len());
            own.copy_from_slice(part);
            rest = others;
        }
        whole
    }
}

impl<T: Plain> Deref for Storage<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Heap(values) => values,
            #[cfg(target_os = "linux")]
            Place::Region(owned) => owned.values(),
        }
    }
}

impl<T: Plain> DerefMut for Storage<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Place::Heap(values) => values,
            #[cfg(target_os = "linux")]
            Place::Region(owned) => owned.values_mut(),
        }
    }
}

/// A small allocator over regions.
#[cfg(target_os = "linux")]
mod regions {
    use super::{Place, Plain, Storage};
    use std::mem::forget;
    use std::ptr::NonNull;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A huge page of x86 and of most ARM systems.
    const HUGE_PAGE: usize = 2 << 20;
    /// Address space of a region, unless one piece needs more.
    const REGION: usize = 64 << 20;
    /// Smaller pieces are the heap's.
    const LEAST: usize = 64 << 10;
    /// Pieces begin at multiples of this.
    const ALIGN: usize = 64;

    /// Address space in huge pages, where the system has some.
    struct Region {
        start: NonNull<u8>,
        size: usize,
        /// Memory from here on was never used: it is zeros.
        fresh: usize,
        /// What is free, as offset and length: sorted, never empty, never side by side.
        free: Vec<(usize, usize)>,
    }

    // SAFETY: a region is memory that belongs to no thread.
    unsafe impl Send for Region {}

    static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

    fn regions() -> MutexGuard<'static, Vec<Region>> {
        REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece of a region.
    pub(super) struct Owned<T: Plain> {
        start: NonNull<T>,
        len: usize,
    }

    // SAFETY: it owns its values as a `Vec` does.
    unsafe impl<T: Plain + Send> Send for Owned<T> {}
    // SAFETY: as above.
    unsafe impl<T: Plain + Sync> Sync for Owned<T> {}

    impl<T: Plain> Owned<T> {
        /// `n` values whose bytes are 0; none if they are too few to be worth it, or the system has no memory of this kind.
        pub(super) fn zeroed(n: usize) -> Option<Self> {
            const { assert!(align_of::<T>() <= ALIGN) };
            let bytes = n.checked_mul(size_of::<T>()).filter(|bytes| *bytes >= LEAST)?;
            let bytes = bytes.checked_next_multiple_of(ALIGN)?;
            let mut regions = regions();
            if let Some(start) = regions.iter_mut().find_map(|region| region.take(bytes)) {
                return Some(Self { start: start.cast(), len: n });
            }
            let mut region = Region::new(bytes.checked_next_multiple_of(HUGE_PAGE)?.max(REGION))?;
            let start = region.take(bytes)?;
            regions.push(region);
            Some(Self { start: start.cast(), len: n })
        }

        /// So many pieces of `n` values each, one behind the other; none if one by itself would not be in a region.
        pub(super) fn zeroed_neighbours(n: usize, count: usize) -> Option<Vec<Self>> {
            let bytes =
                n.checked_mul(size_of::<T>()).filter(|bytes| *bytes >= LEAST && bytes % ALIGN == 0)?;
            let whole = Self::zeroed(bytes.checked_mul(count)? / size_of::<T>())?;
            let start = whole.start;
            // The pieces have it now.
            forget(whole);
            // SAFETY: within the whole.
            Some((0..count).map(|i| Self { start: unsafe { start.add(i * n) }, len: n }).collect())
        }

        /// One piece of pieces that lie one behind the other in this order; the pieces again, if they do not.
        pub(super) fn join(parts: Vec<Storage<T>>) -> Result<Self, Vec<Storage<T>>> {
            let mut whole: Option<(NonNull<T>, usize)> = None;
            for part in &parts {
                let Place::Region(Self { start, len }) = part.0 else { return Err(parts) };
                whole = match whole {
                    None => Some((start, len)),
                    Some((first, before))
                        if first.addr().get() + before * size_of::<T>() == start.addr().get() =>
                    {
                        Some((first, before + len))
                    }
                    Some(_) => return Err(parts),
                };
            }
            let Some((start, len)) = whole else { return Err(parts) };
            // Two regions may lie one behind the other as well.
            let holds = |region: &Region| {
                let offset = region.offset(start.cast());
                offset.is_some_and(|offset| offset + len * size_of::<T>() <= region.size)
            };
            if !regions().iter().any(holds) {
                return Err(parts);
            }
            parts.into_iter().for_each(forget);
            Ok(Self { start, len })
        }

        #[inline(always)]
        pub(super) fn values(&self) -> &[T] {
            // SAFETY: the piece is ours, long and aligned enough, and any bits are values (`Plain`).
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }

        #[inline(always)]
        pub(super) fn values_mut(&mut self) -> &mut [T] {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }

    impl<T: Plain> Drop for Owned<T> {
        fn drop(&mut self) {
            let bytes = (self.len * size_of::<T>()).next_multiple_of(ALIGN);
            let mut regions = regions();
            let at = regions.iter().position(|region| region.offset(self.start.cast()).is_some());
            let at = at.expect("a region outlives its pieces");
            regions[at].give_back(self.start.cast(), bytes);
            if regions[at].is_free() {
                regions.swap_remove(at);
            }
        }
    }

    impl Region {
        /// Asks the system for `size` bytes, a multiple of the huge page.
        fn new(size: usize) -> Option<Self> {
            let space = size.checked_add(HUGE_PAGE)?;
            // SAFETY: a new mapping of memory, at an address that the system chooses.
            let mapped = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    space,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if mapped == libc::MAP_FAILED {
                return None;
            }
            let mapped: *mut u8 = mapped.cast();
            let before = mapped.align_offset(HUGE_PAGE);
            let start = mapped.wrapping_add(before);
            // SAFETY: the ends of the mapping, which nobody uses: what is left begins and ends on huge pages. A system without
            // huge pages refuses the advice, which changes nothing else.
            unsafe {
                if before > 0 {
                    libc::munmap(mapped.cast(), before);
                }
                if before < HUGE_PAGE {
                    libc::munmap(start.add(size).cast(), HUGE_PAGE - before);
                }
                libc::madvise(start.cast(), size, libc::MADV_HUGEPAGE);
            }
            Some(Self { start: NonNull::new(start)?, size, fresh: 0, free: vec![(0, size)] })
        }

        /// The first free piece of `bytes`, cleared.
        fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
            let at = self.free.iter().position(|(_, len)| *len >= bytes)?;
            let (offset, len) = self.free[at];
            match len - bytes {
                0 => drop(self.free.remove(at)),
                left => self.free[at] = (offset + bytes, left),
            }
            // SAFETY: within the region.
            let start = unsafe { self.start.add(offset) };
            let used = self.fresh.saturating_sub(offset).min(bytes);
            // SAFETY: the piece belongs to nobody else.
            unsafe { start.write_bytes(0, used) };
            self.fresh = self.fresh.max(offset + bytes);
            Some(start)
        }

        /// Where in the region `piece` lies, if it does.
        fn offset(&self, piece: NonNull<u8>) -> Option<usize> {
            piece.addr().get().checked_sub(self.start.addr().get()).filter(|offset| *offset < self.size)
        }

        fn give_back(&mut self, piece: NonNull<u8>, bytes: usize) {
            let offset = self.offset(piece).expect("a piece of this region");
            let at = self.free.partition_point(|(other, _)| *other < offset);
            self.free.insert(at, (offset, bytes));
            // With the one behind, then with the one before.
            for at in [at, at.wrapping_sub(1)] {
                let (Some(&(start, len)), Some(&(next, more))) =
                    (self.free.get(at), self.free.get(at.wrapping_add(1)))
                else {
                    continue;
                };
                if start + len == next {
                    self.free[at].1 += more;
                    self.free.remove(at + 1);
                }
            }
        }

        fn is_free(&self) -> bool {
            self.free == [(0, self.size)]
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: a region is dropped when no piece of it is in use.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn pieces_are_zeros_whatever_lay_there_before() {
            let mut region = Region::new(REGION).unwrap();
            let a = region.take(128).unwrap();
            let b = region.take(256).unwrap();
            // SAFETY: both pieces are ours.
            unsafe {
                a.write_bytes(1, 128);
                b.write_bytes(2, 256);
            }
            region.give_back(a, 128);
            region.give_back(b, 256);
            assert!(region.is_free());
            let both = region.take(512).unwrap();
            assert_eq!(both, a, "the hole is used again");
            // SAFETY: the piece is ours.
            assert!(unsafe { std::slice::from_raw_parts(both.as_ptr(), 512) }.iter().all(|byte| *byte == 0));
        }

        #[test]
        fn what_is_given_back_becomes_one_piece_in_any_order() {
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                let mut region = Region::new(REGION).unwrap();
                let pieces = [64, 128, 192].map(|bytes| (region.take(bytes).unwrap(), bytes));
                for i in order {
                    assert!(!region.is_free());
                    region.give_back(pieces[i].0, pieces[i].1);
                }
                assert!(region.is_free(), "{order:?}: {:?}", region.free);
            }
        }

        #[test]
        fn neighbours_become_one_piece_and_others_are_copied() {
            let n = LEAST / 4;
            let mut parts = Storage::<f32>::zeroed_neighbours(n, 3);
            parts.iter_mut().zip([1.0, 2.0, 3.0]).for_each(|(part, x)| part.fill(x));
            let start = parts[0].as_ptr();
            let in_turn = |parts: Vec<Storage<f32>>, expected: [f32; 3]| {
                let whole = Storage::concat(parts);
                for (part, x) in whole.chunks_exact(n).zip(expected) {
                    assert!(part.iter().all(|y| *y == x), "{x}: {:?}", part[0]);
                }
                assert_eq!(whole.len(), 3 * n);
                whole.as_ptr()
            };
            parts.swap(0, 2);
            assert_ne!(in_turn(parts, [3.0, 2.0, 1.0]), start);
            let mut parts = Storage::<f32>::zeroed_neighbours(n, 3);
            parts.iter_mut().zip([1.0, 2.0, 3.0]).for_each(|(part, x)| part.fill(x));
            let start = parts[0].as_ptr();
            assert_eq!(in_turn(parts, [1.0, 2.0, 3.0]), start);
        }

        #[test]
        fn a_piece_larger_than_a_region_has_one_of_its_own() {
            let large = Owned::<f32>::zeroed(REGION / 4 + 1).unwrap();
            assert_eq!(large.values().last(), Some(&0.0));
            assert!(Owned::<f32>::zeroed(8).is_none());
            assert!(Owned::<f32>::zeroed(usize::MAX).is_none());
        }
    }
}
