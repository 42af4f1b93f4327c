//! A boxed slice whose length word has room for a tag: the table's entry stays two words, and a tag is read and written
//! without a look at the bytes. Long slices can be shared, so that a value of megabytes is sent without a copy.
#![expect(unsafe_code, reason = "a slice's length in half a word; Box<[u8]> cannot give the other half away")]

use core::{cell::Cell, mem::ManuallyDrop, ops::Deref, ptr::NonNull};
use std::sync::Arc;

/// Length from which on bytes can be shared.
pub(crate) const SHARED_BYTES_MIN: usize = 64 << 10;

/// Bytes that can be shared.
type Shared = Arc<Box<[u8]>>;

/// At most `u32::MAX` bytes and 32 bits beside them, in two words.
///
/// # Invariants
/// - Fewer than [`SHARED_BYTES_MIN`] bytes: `start` is that of a `Box<[u8]>` with `len` bytes that this value owns.
/// - Else: `start` came out of `Arc::into_raw` of a [`Shared`] with `len` bytes; this value holds one count of it.
pub(crate) struct Packed {
    start: NonNull<u8>,
    len: u32,
    tag: Cell<u32>,
}

// SAFETY: it owns its bytes alone, as the box that it was made of did, or shares them as an Arc does.
unsafe impl Send for Packed {}

/// What a [`Packed`] owns.
enum Owned {
    Alone(Box<[u8]>),
    Shared(Shared),
}

impl Packed {
    /// Takes bytes of which there are at most `u32::MAX`.
    pub(crate) fn new(bytes: Box<[u8]>, tag: u32) -> Self {
        let len = u32::try_from(bytes.len()).expect("a record is far shorter than 4 GiB");
        let start = match bytes.len() < SHARED_BYTES_MIN {
            true => NonNull::from(Box::leak(bytes)).cast(),
            false => Self::start_of(Arc::new(bytes)),
        };
        Self { start, len, tag: Cell::new(tag) }
    }

    fn start_of(bytes: Shared) -> NonNull<u8> {
        NonNull::new(Arc::into_raw(bytes).cast_mut()).expect("an Arc is never null").cast()
    }

    /// The bytes, to be changed; their allocation is the same unless they are shared.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used again nor dropped, so what it owns has one owner.
        match unsafe { this.owned() } {
            Owned::Alone(bytes) => bytes.into_vec(),
            Owned::Shared(bytes) => Arc::unwrap_or_clone(bytes).into_vec(),
        }
    }

    /// The bytes, if they can be shared.
    pub(crate) fn share(&self) -> Option<Shared> {
        if !self.is_shared() {
            return None;
        }
        // SAFETY: by the type's invariant; `self` keeps its own count.
        let bytes = ManuallyDrop::new(unsafe { Arc::from_raw(self.start.as_ptr().cast::<Box<[u8]>>()) });
        Some(Arc::clone(&bytes))
    }

    /// The tag.
    pub(crate) fn tag(&self) -> u32 {
        self.tag.get()
    }

    /// Where the tag stands.
    pub(crate) fn tag_cell(&self) -> &Cell<u32> {
        &self.tag
    }

    fn is_shared(&self) -> bool {
        SHARED_BYTES_MIN <= self.len as usize
    }

    /// What it owns.
    ///
    /// # Safety
    /// `self` must not be used afterwards.
    unsafe fn owned(&self) -> Owned {
        if self.is_shared() {
            // SAFETY: by the type's invariant; the caller sees to it that nobody else gives the count back.
            return Owned::Shared(unsafe { Arc::from_raw(self.start.as_ptr().cast::<Box<[u8]>>()) });
        }
        let slice = NonNull::slice_from_raw_parts(self.start, self.len as usize);
        // SAFETY: by the type's invariant this is the box; the caller sees to it that nobody else frees it.
        Owned::Alone(unsafe { Box::from_raw(slice.as_ptr()) })
    }
}

impl Deref for Packed {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        if self.is_shared() {
            // SAFETY: by the type's invariant; the box lives as long as `self` and is not changed meanwhile.
            return unsafe { self.start.cast::<Box<[u8]>>().as_ref() };
        }
        // SAFETY: by the type's invariant; the bytes live as long as `self` and are not changed meanwhile.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        // SAFETY: nothing uses a value after its drop.
        drop(unsafe { self.owned() });
    }
}

impl Default for Packed {
    fn default() -> Self {
        Self::new(Box::default(), 0)
    }
}

impl Clone for Packed {
    fn clone(&self) -> Self {
        Self::new((**self).into(), self.tag())
    }
}

impl core::fmt::Debug for Packed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Packed").field("bytes", &&**self).field("tag", &self.tag()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_bytes_and_tag_in_two_words() {
        assert_eq!(size_of::<Packed>(), 16);
        assert_eq!(size_of::<Option<Packed>>(), 16);
        for len in [0, 1, SHARED_BYTES_MIN - 1, SHARED_BYTES_MIN, 100_000] {
            let bytes = vec![7; len];
            let packed = Packed::new(bytes.clone().into(), 1);
            packed.tag_cell().set(u32::MAX);
            let copy = packed.clone();
            assert_eq!((&*packed, packed.tag()), (&bytes[..], u32::MAX));
            assert_eq!(packed.into_vec(), bytes);
            assert_eq!((&*copy, copy.tag()), (&bytes[..], u32::MAX));
        }
        assert_eq!(&*Packed::default(), b"");
    }

    #[test]
    fn what_is_shared_outlives_its_owner_and_does_not_change() {
        assert!(Packed::new(vec![7; SHARED_BYTES_MIN - 1].into(), 0).share().is_none());
        let packed = Packed::new(vec![7; SHARED_BYTES_MIN].into(), 0);
        let (first, second) = (packed.share().unwrap(), packed.share().unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        let mut bytes = packed.into_vec();
        bytes[0] = 8;
        assert_eq!((first[0], bytes[0]), (7, 8));
        drop(second);
        // Bytes that nobody shares any more keep their place when they are changed.
        let packed = Packed::new(bytes.into(), 0);
        drop(packed.share());
        let start = packed.as_ptr();
        let bytes = packed.into_vec();
        assert_eq!(bytes.as_ptr(), start);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}
