//! Base64 of large values, for exports: the BEAM's own takes a second of a core for a hundred megabytes.

use rustler::{Binary, Encoder, Env, NewBinary, Term};

use crate::atoms;

const LETTERS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const PADDING: u8 = b'=';
const INVALID: u8 = 0xFF;

/// The number of each letter.
const NUMBERS: [u8; 256] = numbers();

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "it is evaluated by the compiler")]
const fn numbers() -> [u8; 256] {
    let mut numbers = [INVALID; 256];
    let mut number = 0;
    while number < LETTERS.len() {
        numbers[LETTERS[number] as usize] = number as u8;
        number += 1;
    }
    numbers
}

/// The Base64 of `bytes`, with padding.
#[rustler::nif(schedule = "DirtyCpu")]
fn encode_base64<'a>(env: Env<'a>, bytes: Binary<'a>) -> Term<'a> {
    let mut text = NewBinary::new(env, bytes.len().div_ceil(3) * 4);
    for (letters, bytes) in text.as_mut_slice().chunks_exact_mut(4).zip(bytes.chunks(3)) {
        letters.copy_from_slice(&encoded(bytes));
    }
    Binary::from(text).encode(env)
}

/// The bytes that `text` is the Base64 of: `{:ok, bytes}`, or `:error` when it is none.
#[rustler::nif(schedule = "DirtyCpu")]
fn decode_base64<'a>(env: Env<'a>, text: Binary<'a>) -> Term<'a> {
    if !text.len().is_multiple_of(4) {
        return atoms::error().encode(env);
    }
    let padding = text.iter().rev().take(2).take_while(|letter| **letter == PADDING).count();
    let mut bytes = NewBinary::new(env, text.len() / 4 * 3 - padding);
    let letters = text.get(..text.len() - padding).unwrap_or_default();
    let mut is_base64 = true;
    for (bytes, letters) in bytes.as_mut_slice().chunks_mut(3).zip(letters.chunks(4)) {
        let (decoded, valid) = decoded(letters);
        is_base64 &= valid;
        bytes.iter_mut().zip(decoded).for_each(|(byte, decoded)| *byte = decoded);
    }
    if is_base64 { (atoms::ok(), Term::from(bytes)).encode(env) } else { atoms::error().encode(env) }
}

/// Four letters of up to three bytes.
fn encoded(bytes: &[u8]) -> [u8; 4] {
    let byte = |at| bytes.get(at).copied().unwrap_or_default();
    let word = u32::from_be_bytes([0, byte(0), byte(1), byte(2)]);
    let letter = |at: usize| {
        let number = (word >> (18 - 6 * at)) & 63;
        let letter = usize::try_from(number).ok().and_then(|number| LETTERS.get(number));
        if at > bytes.len() { PADDING } else { letter.copied().unwrap_or(PADDING) }
    };
    [letter(0), letter(1), letter(2), letter(3)]
}

/// Three bytes of up to four letters, and whether all are letters.
fn decoded(letters: &[u8]) -> ([u8; 3], bool) {
    let number = |at| letters.get(at).map_or(0, |letter| NUMBERS.get(usize::from(*letter)).copied().unwrap_or(INVALID));
    let numbers = [number(0), number(1), number(2), number(3)];
    let word = numbers.iter().fold(0, |word: u32, number| (word << 6) | u32::from(number & 63));
    let [_, bytes @ ..] = word.to_be_bytes();
    (bytes, numbers.iter().all(|number| *number != INVALID))
}
