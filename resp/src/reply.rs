//! Reply bytes -> element boundaries.

/// Length in bytes of the first whole reply (RESP2 or RESP3, nested) in `buf`; `None` when it is not complete.
///
/// # Errors
/// The bytes are no reply; the text says why.
pub fn frame_len(_buf: &[u8]) -> Result<Option<usize>, &'static str> {
    todo!()
}

/// Splits the reply `*N` array in `buf` into its N element slices; `None` when `buf` is not a whole array.
pub fn array_elements(_buf: &[u8]) -> Option<Vec<&[u8]>> {
    todo!()
}

/// Reads the integer of a `:N` reply; `None` when `buf` is something else.
pub fn integer(_buf: &[u8]) -> Option<i64> {
    todo!()
}
