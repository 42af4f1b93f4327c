//! A boxed slice whose length word has room for a tag: the table's entry stays two words, and a tag is read and written
//! without a look at the bytes.
#![expect(unsafe_code, reason = "a slice's length in half a word; Box<[u8]> cannot give the other half away")]

use core::{cell::Cell, mem::ManuallyDrop, ops::Deref, ptr::NonNull};

/// At most `u32::MAX` bytes and 32 bits beside them, in two words.
///
/// # Invariants
/// `start` and `len` are those of a `Box<[u8]>` that this value owns.
pub(crate) struct Packed {
    start: NonNull<u8>,
    len: u32,
    tag: Cell<u32>,
}

// SAFETY: it owns its bytes alone, as the box that it was made of did.
unsafe impl Send for Packed {}

impl Packed {
    /// Takes bytes of which there are at most `u32::MAX`.
    pub(crate) fn new(bytes: Box<[u8]>, tag: u32) -> Self {
        let len = u32::try_from(bytes.len()).expect("a record is far shorter than 4 GiB");
        Self { start: NonNull::from(Box::leak(bytes)).cast(), len, tag: Cell::new(tag) }
    }

    /// The bytes, to be changed; their allocation is the same.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used again nor dropped, so the box has one owner.
        unsafe { this.as_box() }.into_vec()
    }

    /// The tag.
    pub(crate) fn tag(&self) -> u32 {
        self.tag.get()
    }

    /// Changes the tag.
    pub(crate) fn set_tag(&self, tag: u32) {
        self.tag.set(tag);
    }

    /// The box.
    ///
    /// # Safety
    /// `self` must not be used afterwards.
    unsafe fn as_box(&self) -> Box<[u8]> {
        let slice = NonNull::slice_from_raw_parts(self.start, self.len as usize);
        // SAFETY: by the type's invariant this is the box; the caller sees to it that nobody else frees it.
        unsafe { Box::from_raw(slice.as_ptr()) }
    }
}

impl Deref for Packed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: by the type's invariant; the bytes live as long as `self` and are not changed meanwhile.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        // SAFETY: nothing uses a value after its drop.
        drop(unsafe { self.as_box() });
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
        for bytes in [&b""[..], b"a", &[7; 100_000]] {
            let packed = Packed::new(bytes.into(), 1);
            packed.set_tag(u32::MAX);
            let copy = packed.clone();
            assert_eq!((&*packed, packed.tag()), (bytes, u32::MAX));
            assert_eq!(packed.into_vec(), bytes);
            assert_eq!((&*copy, copy.tag()), (bytes, u32::MAX));
        }
        assert_eq!(&*Packed::default(), b"");
    }
}
