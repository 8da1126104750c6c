//! How much room a term will take up on a process's heap, told from its encoding.
//!
//! The BEAM has no function for it that a NIF could call. An estimate that is wrong costs time,
//! nothing else: it says how much heap a caller makes ready before it lists.

/// Words on the heap, and words of the binaries that the heap refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) heap: u32,
    pub(crate) binaries: u32,
}

/// Binaries up to this size stand on the heap.
const HEAP_BINARY_BYTES_MAX: usize = 64;

/// What refers to one that does not.
const BINARY_REFERENCE_WORDS: usize = 6;

/// Maps up to this size are two tuples; larger ones are trees.
const FLAT_MAP_MAX: usize = 32;

impl Room {
    /// The room for the term with this encoding.
    pub(crate) fn of(payload: &[u8]) -> Self {
        let mut rest = payload.split_first().map_or(payload, |(_version, rest)| rest);
        let mut room = Self::default();
        while let Some((words, binary, tail)) = next(rest) {
            room.add(words, words_of(binary));
            rest = tail;
        }
        // What is not known: mostly, terms are about twice as large as their encoding.
        room.add(2 * words_of(rest.len()), 0);
        room
    }

    /// Whether every map in the term with this encoding is small; false also when it cannot be told.
    pub(crate) fn has_small_maps_only(payload: &[u8]) -> bool {
        let mut rest = payload.split_first().map_or(payload, |(_version, rest)| rest);
        while let Some((words, _binary, tail)) = next(rest) {
            if rest.first() == Some(&b't') && words > flat_map_words(FLAT_MAP_MAX) {
                return false;
            }
            rest = tail;
        }
        rest.is_empty()
    }

    /// Without a look at the encoding.
    pub(crate) fn guess(payload_bytes: usize) -> Self {
        let mut room = Self::default();
        room.add(2 * words_of(payload_bytes), words_of(payload_bytes));
        room
    }

    /// In bytes.
    pub(crate) fn bytes(self) -> usize {
        (self.heap as usize + self.binaries as usize) * size_of::<usize>()
    }

    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.binaries) << 32 | u64::from(self.heap)
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { heap: bits as u32, binaries: (bits >> 32) as u32 }
    }

    fn add(&mut self, heap: usize, binaries: usize) {
        let capped = |words: usize| u32::try_from(words).unwrap_or(u32::MAX);
        self.heap = self.heap.saturating_add(capped(heap));
        self.binaries = self.binaries.saturating_add(capped(binaries));
    }
}

/// The next term's own words, without those of what is in it, which comes after it; the bytes of a
/// binary beside the heap; and what follows. `None` at the end, and for terms that are rare.
fn next(bytes: &[u8]) -> Option<(usize, usize, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let skip = |words: usize, count: usize| Some((words, 0, rest.get(count..)?));
    let u8_at = || rest.first().map(|&n| usize::from(n));
    let u16_at = || Some(usize::from(u16::from_be_bytes(*rest.first_chunk()?)));
    let u32_at = || usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).ok();
    match tag {
        b'a' => skip(0, 1),
        b'b' => skip(0, 4),
        b'F' => skip(2, 8),
        b'n' => u8_at().and_then(|n| skip(if n < 8 { 0 } else { 1 + words_of(n) }, 2 + n)),
        b'w' | b's' => u8_at().and_then(|n| skip(0, 1 + n)),
        b'v' | b'd' => u16_at().and_then(|n| skip(0, 2 + n)),
        b'h' => u8_at().and_then(|arity| skip(1 + arity, 1)),
        b'i' => u32_at().and_then(|arity| skip(1 + arity, 4)),
        b'j' => skip(0, 0),
        b'k' => u16_at().and_then(|n| skip(2 * n, 2 + n)),
        b'l' => u32_at().and_then(|n| skip(2 * n, 4)),
        b'm' => {
            let size = u32_at()?;
            let tail = rest.get(4 + size..)?;
            let on_heap = size <= HEAP_BINARY_BYTES_MAX;
            Some(if on_heap { (2 + words_of(size), 0, tail) } else { (BINARY_REFERENCE_WORDS, size, tail) })
        }
        b't' => u32_at().and_then(|n| skip(if n <= FLAT_MAP_MAX { flat_map_words(n) } else { 4 * n }, 4)),
        _ => None,
    }
}

fn flat_map_words(keys: usize) -> usize {
    4 + 2 * keys
}

fn words_of(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<usize>())
}
