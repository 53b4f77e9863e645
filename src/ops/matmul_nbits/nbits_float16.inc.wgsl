// Element i of an array of 16-bit floats, from the word that holds it and its neighbour.

fn float16_of(word: u32, i: u32) -> f32 {
    return unpack2x16float(word)[i & 1u];
}

fn bfloat16_of(word: u32, i: u32) -> f32 {
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}
