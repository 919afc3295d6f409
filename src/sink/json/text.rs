//! Text in JSON: escapes, and Base64 for what is not text.

/// Appends bytes as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD, the replacement character.
pub fn string(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    // Keys and ids are almost always plain ASCII.
    if value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\') {
        out.extend_from_slice(value);
    } else {
        for chunk in value.utf8_chunks() {
            escaped(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend([byte >> 4, byte & 15].map(|nibble| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
            }
            _ => out.push(*byte),
        }
    }
}

/// Appends bytes as Base64 (RFC 4648, standard alphabet, padded).
pub fn base64(out: &mut Vec<u8>, value: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| ALPHABET.get(usize::try_from(bits & 63).unwrap_or(0)).copied().unwrap_or(b'=');
    for group in value.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| (bits << 8) | u32::from(group.get(i).copied().unwrap_or(0)));
        let digits = [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)];
        out.extend(digits.into_iter().enumerate().map(|(i, digit)| if i <= group.len() { digit } else { b'=' }));
    }
}
