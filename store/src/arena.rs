//! Memory of records and buckets: objects of a few sizes in pages of 4 KiB, named by 31 bits.
//!
//! Each store has its own. A node has its slots in 16 to 1024 stores, so what an arena costs beyond its objects is to grow
//! with them: a page belongs to objects of one size, and each size in use leaves half a page unused on average.
//! Of 64 stores with 15,000 keys of 16 bytes and values of 32, each has 205 pages of records of 56 bytes and some 30 pages
//! of buckets in about three sizes: 6 KiB unused of 960, or 0.4 bytes a key. Values of 16 to 64 bytes take seven sizes,
//! 14 KiB more. Pages of 64 KiB would leave 16 times that unused: 6 bytes a key, or 14. An empty arena has no pages.
//! One arena for all stores of a worker would leave less, but the stores could no longer be built, moved to another
//! thread or dropped each for itself.
//!
//! Pages are cut from chunks of 256 KiB that are reserved at once and take memory as their pages are used. A page that is
//! empty can be used for another size; beyond a few its memory goes back to the system. To empty sparse pages, whoever has
//! the references moves their objects: [`Arena::choose`], [`Arena::is_sparse`], [`Arena::relocate`].
#![expect(unsafe_code, reason = "records of any length and marks that reads change, in one piece of memory")]

use core::{cell::Cell, ptr::NonNull};

use crate::bucket::Bucket;

/// Bytes of a page: what a system gives and takes.
const PAGE_BYTES: usize = 4096;
/// Pages of a chunk.
const CHUNK_PAGES: usize = if cfg!(test) { 4 } else { 64 };
const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_BYTES;
/// Objects begin at multiples of so many bytes.
const UNIT: usize = 8;
const PAGE_UNITS: u32 = (PAGE_BYTES / UNIT) as u32;
/// Pages that references can name: 16 GiB.
const PAGES_MAX: usize = 1 << (31 - PAGE_UNITS.trailing_zeros());

/// Sizes of records: multiples of 8 bytes up to 256, then as many as fit a page 15, 14, ... times.
const RECORD_SIZES: [u16; 43] = record_sizes();
/// Most buckets in one object.
pub(crate) const RUN_MAX: usize = 10;
const CLASSES: usize = RECORD_SIZES.len() + RUN_MAX;
/// Bytes of a record's object before its body: mark (4), length of the body (2).
const HEAD_BYTES: usize = 6;
/// Longest body of a record.
pub(crate) const BODY_BYTES_MAX: usize = RECORD_SIZES[RECORD_SIZES.len() - 1] as usize - HEAD_BYTES;

/// No object, page or class.
const NONE: u16 = u16::MAX;
const UNLISTED: u32 = u32::MAX;
const NO_CLASS: u8 = u8::MAX;

/// Empty pages whose memory is kept, beside one in so many of all.
const EMPTY_KEPT: usize = 1;
const EMPTY_KEPT_RATIO: usize = 128;
/// Fewer free bytes than this are left where they are.
const WASTE_BYTES_MIN: usize = if cfg!(test) { 2 } else { 4 } * PAGE_BYTES;

const fn record_sizes() -> [u16; 43] {
    let mut sizes = [0; 43];
    let mut i = 0;
    while i < sizes.len() {
        // 16, 24, ..., 256, then 4096 / 15, ..., 4096 / 4 rounded down to a multiple of 8.
        sizes[i] = if i < 31 { 8 * (i as u16 + 2) } else { 4096 / (15 - (i as u16 - 31)) / 8 * 8 };
        i += 1;
    }
    sizes
}

/// Names an object of an arena: its place in units of 8 bytes, below 2^31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ref(u32);

impl Ref {
    /// Its number, below 2^31.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The reference with a number that [`Ref::number`] gave.
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    fn page(self) -> usize {
        (self.0 / PAGE_UNITS) as usize
    }

    /// Bytes from the page's start.
    fn offset(self) -> usize {
        (self.0 % PAGE_UNITS) as usize * UNIT
    }
}

/// How much may be free before objects are moved together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tidiness {
    /// While commands wait: a sixth.
    Busy,
    /// When there is time: one part in 32.
    Idle,
}

/// Objects of fixed sizes.
///
/// # Invariants
/// - A chunk is initialised memory of [`CHUNK_BYTES`] bytes at a multiple of [`PAGE_BYTES`], which this value owns.
/// - A page has a class, and objects of that class's size one behind the other, or is empty.
/// - An open page of a class has room, is not sparse, and stands in the class's list at `listed`; no other page is listed.
/// - Callers use a reference from [`Arena::alloc_record`] or [`Arena::alloc_run`] until they free it, as what it was
///   allocated as. (One that is used later names other bytes of the arena; nothing is read or written outside of it.)
#[derive(Debug)]
pub(crate) struct Arena {
    chunks: Vec<Chunk>,
    pages: Vec<Page>,
    classes: [Class; CLASSES],
    /// Empty pages; the memory of the last `kept` of them was not given back.
    empty: Vec<u32>,
    kept: usize,
    /// Bytes of objects, and of free places for objects in pages that have a class.
    live_bytes: usize,
    free_bytes: usize,
    /// Where the search for sparse pages goes on.
    choosing: usize,
}

#[derive(Debug, Clone, Copy)]
struct Page {
    class: u8,
    /// Whether its objects are to move away: no new ones come.
    is_sparse: bool,
    live: u16,
    /// Places from here on were never used.
    fresh: u16,
    /// A free place before that, which holds the number of the next one.
    free: u16,
    listed: u32,
}

#[derive(Debug, Default)]
struct Class {
    open: Vec<u32>,
    pages: u32,
    live: u32,
    /// Pages that may still be chosen as sparse: as many as the other pages have room for.
    excess: u32,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            pages: Vec::new(),
            classes: [const { Class { open: Vec::new(), pages: 0, live: 0, excess: 0 } }; CLASSES],
            empty: Vec::new(),
            kept: 0,
            live_bytes: 0,
            free_bytes: 0,
            choosing: 0,
        }
    }
}

/// The class of records with a body of so many bytes.
fn class_of(body_len: usize) -> usize {
    let size = body_len + HEAD_BYTES;
    if size <= 256 {
        size.div_ceil(8).saturating_sub(2)
    } else {
        RECORD_SIZES.partition_point(|s| usize::from(*s) < size)
    }
}

fn size_of_class(class: usize) -> usize {
    match RECORD_SIZES.get(class) {
        Some(size) => usize::from(*size),
        None => (class - RECORD_SIZES.len() + 1) * size_of::<Bucket>(),
    }
}

fn capacity_of_class(class: usize) -> usize {
    PAGE_BYTES / size_of_class(class)
}

impl Arena {
    /// Allocates a record; `None` when its body is longer than [`BODY_BYTES_MAX`] or all references are in use. The
    /// content is what [`Arena::write`] puts there.
    pub(crate) fn alloc_record(&mut self, body_len: usize) -> Option<Ref> {
        if BODY_BYTES_MAX < body_len {
            return None;
        }
        self.alloc(class_of(body_len))
    }

    /// Allocates 1 to [`RUN_MAX`] empty buckets; `None` when all references are in use.
    pub(crate) fn alloc_run(&mut self, buckets: usize) -> Option<Ref> {
        assert!(0 < buckets && buckets <= RUN_MAX, "a run has 1 to {RUN_MAX} buckets");
        let run = self.alloc(RECORD_SIZES.len() + buckets - 1)?;
        self.run_mut(run, buckets).fill(Bucket::default());
        Some(run)
    }

    /// Frees an object.
    pub(crate) fn free(&mut self, object: Ref) {
        let id = object.page();
        let class = usize::from(self.pages[id].class);
        let (size, capacity) = (size_of_class(class), capacity_of_class(class));
        let place = (object.offset() / size) as u16;
        let next = self.pages[id].free;
        self.bytes_mut(object, 2).copy_from_slice(&next.to_ne_bytes());
        let page = &mut self.pages[id];
        page.free = place;
        page.live -= 1;
        self.classes[class].live -= 1;
        self.live_bytes -= size;
        self.free_bytes += size;
        if page.live == 0 {
            self.close(id);
        } else if !page.is_sparse && usize::from(page.live) + 1 == capacity {
            self.list(id);
        }
    }

    /// Whether a record with a body of this length takes the same place as this one.
    pub(crate) fn fits(&self, object: Ref, body_len: usize) -> bool {
        body_len <= BODY_BYTES_MAX && usize::from(self.pages[object.page()].class) == class_of(body_len)
    }

    /// The mark and the body of a record.
    #[inline]
    pub(crate) fn record(&self, object: Ref) -> (&Cell<u32>, &[u8]) {
        let start = self.start(object);
        // SAFETY: a multiple of 8 below the page's last byte, in memory that lives as long as `self`. Whatever is there is
        // a number; it is changed through this cell or by those who have `&mut self`. Bodies begin behind it.
        let mark = unsafe { &*start.cast::<Cell<u32>>() };
        let mut len = [0; 2];
        len.copy_from_slice(self.bytes(object, 4, 2));
        (mark, self.bytes(object, HEAD_BYTES, usize::from(u16::from_ne_bytes(len))))
    }

    /// Writes a record: its mark, and a body of the length for which it was allocated.
    pub(crate) fn write(&mut self, object: Ref, mark: u32, body_len: usize, body: impl FnOnce(&mut [u8])) {
        debug_assert!(self.fits(object, body_len), "a record is as long as its place");
        let bytes = self.bytes_mut(object, HEAD_BYTES + body_len);
        let (head, rest) = bytes.split_at_mut(HEAD_BYTES);
        head[..4].copy_from_slice(&mark.to_ne_bytes());
        head[4..].copy_from_slice(&(body_len as u16).to_ne_bytes());
        body(rest);
    }

    /// Buckets.
    #[inline]
    pub(crate) fn run(&self, object: Ref, buckets: usize) -> &[Bucket] {
        let start = self.run_start(object, buckets);
        // SAFETY: checked to lie in one page at a multiple of 64 bytes; any bytes are buckets; nobody changes them without
        // `&mut self`.
        unsafe { core::slice::from_raw_parts(start, buckets) }
    }

    /// Buckets, to be changed.
    pub(crate) fn run_mut(&mut self, object: Ref, buckets: usize) -> &mut [Bucket] {
        let start = self.run_start(object, buckets);
        // SAFETY: as above, and `&mut self` excludes all others.
        unsafe { core::slice::from_raw_parts_mut(start, buckets) }
    }

    /// Has the processor fetch the first two cache lines of a record.
    #[inline]
    pub(crate) fn prefetch_record(&self, object: Ref) {
        let start = self.start(object);
        prefetch(start);
        prefetch(start.wrapping_add(size_of::<Bucket>()));
    }

    /// Has the processor fetch a bucket of a run.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, object: Ref, bucket: usize) {
        prefetch(self.start(object).wrapping_add(bucket * size_of::<Bucket>()));
    }

    /// Whether so much is free that it pays to move objects together. Then the search for sparse pages begins.
    pub(crate) fn begin_tidying(&mut self, tidiness: Tidiness) -> bool {
        let part = match tidiness {
            Tidiness::Busy => 5,
            Tidiness::Idle => 31,
        };
        if self.free_bytes < WASTE_BYTES_MIN || self.free_bytes * part <= self.live_bytes {
            return false;
        }
        let mut excess = 0;
        for (i, class) in self.classes.iter_mut().enumerate() {
            let capacity = capacity_of_class(i) as u32;
            class.excess = (class.pages * capacity - class.live) / capacity;
            excess += class.excess as usize;
        }
        self.choosing = 0;
        excess * PAGE_BYTES * 2 >= self.free_bytes
    }

    /// Looks at the next `max` pages and chooses sparse ones; returns whether it has seen all.
    ///
    /// Sparse is a page with no more objects than the mean of its class, as long as the pages that stay have room for all
    /// of the objects.
    pub(crate) fn choose(&mut self, max: usize) -> bool {
        let end = self.pages.len().min(self.choosing + max);
        for id in self.choosing..end {
            let page = self.pages[id];
            if page.class == NO_CLASS || page.is_sparse {
                continue;
            }
            let class = &mut self.classes[usize::from(page.class)];
            if class.excess != 0 && u64::from(page.live) * u64::from(class.pages) <= u64::from(class.live) {
                class.excess -= 1;
                self.pages[id].is_sparse = true;
                self.unlist(id);
            }
        }
        self.choosing = end;
        end == self.pages.len()
    }

    /// Whether an object is to be moved.
    #[inline]
    pub(crate) fn is_sparse(&self, object: Ref) -> bool {
        self.pages[object.page()].is_sparse
    }

    /// Moves an object and frees its old place; returns its new reference. It stays when there is no other place.
    pub(crate) fn relocate(&mut self, object: Ref) -> Ref {
        let class = usize::from(self.pages[object.page()].class);
        let Some(new) = self.alloc(class) else { return object };
        let size = size_of_class(class);
        let (from, to) = (self.start_of(object, size), self.start_of(new, size));
        // SAFETY: both were checked to lie in the arena; they are two objects of this size, one of them new.
        unsafe { core::ptr::copy_nonoverlapping(from, to, size) };
        self.free(object);
        new
    }

    /// Gives one chunk back; the arena is not used any more. `false`: there is none left.
    pub(crate) fn drop_chunk(&mut self) -> bool {
        self.chunks.pop().is_some()
    }

    /// Whether pages are still to be emptied.
    pub(crate) fn has_sparse_pages(&self) -> bool {
        self.pages.iter().any(|page| page.is_sparse)
    }

    /// Bytes of objects.
    #[cfg(test)]
    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Pages that have a class.
    #[cfg(test)]
    pub(crate) fn pages_in_use(&self) -> usize {
        self.pages.len() - self.empty.len()
    }

    /// Checks every invariant of the type.
    ///
    /// # Panics
    /// When one does not hold.
    pub(crate) fn check_invariants(&self) {
        let (mut live_bytes, mut free_bytes) = (0, 0);
        let mut classes = [(0_u32, 0_u32, 0_usize); CLASSES];
        for (id, page) in self.pages.iter().enumerate() {
            if page.class == NO_CLASS {
                assert_eq!(
                    (page.live, page.listed, page.is_sparse),
                    (0, UNLISTED, false),
                    "an empty page is that"
                );
                continue;
            }
            let class = usize::from(page.class);
            let (size, capacity) = (size_of_class(class), capacity_of_class(class));
            assert!(
                page.live != 0 && usize::from(page.live) <= capacity,
                "a page has as many objects as fit"
            );
            let is_open = !page.is_sparse && usize::from(page.live) < capacity;
            assert_eq!(page.listed != UNLISTED, is_open, "a page with room is open");
            if is_open {
                assert_eq!(self.classes[class].open[page.listed as usize] as usize, id, "it is listed there");
            }
            let (mut free, mut free_len) = (page.free, capacity - usize::from(page.fresh));
            while free != NONE {
                free_len += 1;
                assert!(free < page.fresh && free_len <= capacity, "the free places are a list");
                let object = Ref(id as u32 * PAGE_UNITS + (usize::from(free) * size / UNIT) as u32);
                let mut next = [0; 2];
                next.copy_from_slice(self.bytes(object, 0, 2));
                free = u16::from_ne_bytes(next);
            }
            assert_eq!(usize::from(page.live) + free_len, capacity, "a place is free or in use");
            live_bytes += usize::from(page.live) * size;
            free_bytes += free_len * size;
            classes[class].0 += 1;
            classes[class].1 += u32::from(page.live);
            classes[class].2 += usize::from(is_open);
        }
        let sums = self.classes.iter().map(|class| (class.pages, class.live, class.open.len()));
        assert!(sums.eq(classes), "the counts of a class are the sums over its pages");
        assert_eq!((self.live_bytes, self.free_bytes), (live_bytes, free_bytes), "bytes are counted");
        let empty = self.pages.iter().filter(|page| page.class == NO_CLASS).count();
        assert_eq!(self.empty.len(), empty, "empty pages are known");
        assert!(self.kept <= empty, "only empty pages are kept");
        assert!(self.pages.len() <= self.chunks.len() * CHUNK_PAGES, "a page lies in a chunk");
    }

    fn alloc(&mut self, class: usize) -> Option<Ref> {
        let (size, capacity) = (size_of_class(class), capacity_of_class(class));
        let id = match self.classes[class].open.last() {
            Some(id) => *id,
            None => self.open(class)?,
        };
        let free = self.pages[id as usize].free;
        let place = if free == NONE { self.pages[id as usize].fresh } else { free };
        let object = Ref(id * PAGE_UNITS + (usize::from(place) * size / UNIT) as u32);
        let next = if free == NONE {
            NONE
        } else {
            let mut next = [0; 2];
            next.copy_from_slice(self.bytes(object, 0, 2));
            u16::from_ne_bytes(next)
        };
        let page = &mut self.pages[id as usize];
        page.fresh += u16::from(free == NONE);
        page.free = next;
        page.live += 1;
        if usize::from(page.live) == capacity {
            self.unlist(id as usize);
        }
        self.classes[class].live += 1;
        self.live_bytes += size;
        self.free_bytes -= size;
        Some(object)
    }

    /// Makes a page of an empty one or a new one.
    fn open(&mut self, class: usize) -> Option<u32> {
        let id = match self.empty.pop() {
            Some(id) => {
                self.kept = self.kept.saturating_sub(1);
                id as usize
            }
            None if self.pages.len() == PAGES_MAX => return None,
            None => {
                if self.pages.len() == self.chunks.len() * CHUNK_PAGES {
                    self.chunks.push(Chunk::new());
                }
                self.pages.push(Page::EMPTY);
                self.pages.len() - 1
            }
        };
        self.pages[id] = Page { class: class as u8, ..Page::EMPTY };
        self.classes[class].pages += 1;
        self.free_bytes += capacity_of_class(class) * size_of_class(class);
        self.list(id);
        Some(id as u32)
    }

    /// Makes a page without objects an empty one.
    fn close(&mut self, id: usize) {
        self.unlist(id);
        let class = usize::from(self.pages[id].class);
        self.classes[class].pages -= 1;
        self.free_bytes -= capacity_of_class(class) * size_of_class(class);
        self.pages[id] = Page::EMPTY;
        self.empty.push(id as u32);
        self.kept += 1;
        if EMPTY_KEPT + self.pages.len() / EMPTY_KEPT_RATIO < self.kept {
            let oldest = self.empty[self.empty.len() - self.kept] as usize;
            self.chunks[oldest / CHUNK_PAGES].give_back(oldest % CHUNK_PAGES);
            self.kept -= 1;
        }
    }

    fn list(&mut self, id: usize) {
        let open = &mut self.classes[usize::from(self.pages[id].class)].open;
        self.pages[id].listed = open.len() as u32;
        open.push(id as u32);
    }

    fn unlist(&mut self, id: usize) {
        let at = core::mem::replace(&mut self.pages[id].listed, UNLISTED);
        if at == UNLISTED {
            return;
        }
        let open = &mut self.classes[usize::from(self.pages[id].class)].open;
        open.swap_remove(at as usize);
        if let Some(moved) = open.get(at as usize) {
            self.pages[*moved as usize].listed = at;
        }
    }

    /// Where an object begins: always within a chunk, at a multiple of 8.
    #[inline]
    fn start(&self, object: Ref) -> *mut u8 {
        let page = object.page();
        let chunk = &self.chunks[page / CHUNK_PAGES];
        chunk.start.as_ptr().wrapping_add(page % CHUNK_PAGES * PAGE_BYTES + object.offset())
    }

    /// Where an object begins of which `len` bytes are to be used.
    #[inline]
    fn start_of(&self, object: Ref, len: usize) -> *mut u8 {
        assert!(object.offset() + len <= PAGE_BYTES, "an object lies in one page");
        self.start(object)
    }

    fn run_start(&self, object: Ref, buckets: usize) -> *mut Bucket {
        assert!(object.offset().is_multiple_of(align_of::<Bucket>()), "buckets are cache lines");
        self.start_of(object, buckets * size_of::<Bucket>()).cast()
    }

    #[inline]
    fn bytes(&self, object: Ref, from: usize, len: usize) -> &[u8] {
        let start = self.start_of(object, from + len).wrapping_add(from);
        // SAFETY: checked to lie in one page, whose memory is initialised and lives as long as `self`. Behind the mark
        // nothing is changed without `&mut self`.
        unsafe { core::slice::from_raw_parts(start, len) }
    }

    fn bytes_mut(&mut self, object: Ref, len: usize) -> &mut [u8] {
        let start = self.start_of(object, len);
        // SAFETY: as above, and `&mut self` excludes all others.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }
}

impl Page {
    const EMPTY: Self =
        Self { class: NO_CLASS, is_sparse: false, live: 0, fresh: 0, free: NONE, listed: UNLISTED };
}

/// Has the processor fetch a cache line; any address will do.
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch reads nothing that the program could notice.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// [`CHUNK_BYTES`] of memory of the system: zero at first, taken page by page when they are written.
#[derive(Debug)]
struct Chunk {
    start: NonNull<u8>,
}

// SAFETY: it owns its memory alone.
unsafe impl Send for Chunk {}

#[cfg(not(miri))]
impl Chunk {
    fn new() -> Self {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: a new mapping at an address that the system chooses touches no other memory.
        let start = unsafe {
            mmap_anonymous(
                core::ptr::null_mut(),
                CHUNK_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let start = start.ok().and_then(|start| NonNull::new(start.cast()));
        // As every other allocation that fails.
        Self { start: start.unwrap_or_else(|| std::alloc::handle_alloc_error(Self::LAYOUT)) }
    }

    /// Gives the memory of a page back to the system; it reads as zero afterwards.
    fn give_back(&mut self, page: usize) {
        assert!(page < CHUNK_PAGES, "a page lies in its chunk");
        let start = self.start.as_ptr().wrapping_add(page * PAGE_BYTES);
        // SAFETY: the page is this chunk's, and `&mut self` excludes all who could look at it. It is a hint: whether it is
        // followed does not matter.
        let _ = unsafe { rustix::mm::madvise(start.cast(), PAGE_BYTES, rustix::mm::Advice::LinuxDontNeed) };
    }
}

#[cfg(not(miri))]
impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the mapping is that of `new`, and nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), CHUNK_BYTES) };
    }
}

/// Miri knows no mappings.
#[cfg(miri)]
impl Chunk {
    fn new() -> Self {
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::LAYOUT) });
        Self { start: start.unwrap_or_else(|| std::alloc::handle_alloc_error(Self::LAYOUT)) }
    }

    fn give_back(&mut self, page: usize) {
        // SAFETY: the page is this chunk's, and `&mut self` excludes all others.
        unsafe { self.start.as_ptr().add(page * PAGE_BYTES).write_bytes(0, PAGE_BYTES) };
    }
}

#[cfg(miri)]
impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody uses it any more.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), Self::LAYOUT) };
    }
}

impl Chunk {
    const LAYOUT: core::alloc::Layout = match core::alloc::Layout::from_size_align(CHUNK_BYTES, PAGE_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("sizes are powers of two"),
    };
}
