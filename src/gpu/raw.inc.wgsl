// Elements of an array as a file has it, as the words that a device has for them. RAW is the array's
// type, by dbt_gpu_raw; 16-bit floats become floats exactly, subnormal ones too, which
// unpack2x16float need not keep.
#param RAW 0..10 // words, float16, bfloat16, uint8, int8, uint16, int16, uint4, int4, uint2, int2

#if RAW == 0
const RAW_BITS = 32u;
#elif RAW == 1 || RAW == 2 || RAW == 5 || RAW == 6
const RAW_BITS = 16u;
#elif RAW == 3 || RAW == 4
const RAW_BITS = 8u;
#elif RAW == 7 || RAW == 8
const RAW_BITS = 4u;
#else
const RAW_BITS = 2u;
#endif

// The word of the array that element i lies in.
fn raw_index(i: u32) -> u32 {
    return i / (32u / RAW_BITS);
}

#if RAW == 1
fn float16_value(bits: u32) -> u32 {
    let size = bits & 0x7fffu;
    let sign = (bits & 0x8000u) << 16u;
    if size < 0x0400u { // zero or subnormal: a multiple of 2^-24
        return sign | bitcast<u32>(f32(size) * 5.9604644775390625e-8);
    }
    return sign | ((size << 13u) + select(0x38000000u, 0x70000000u, size >= 0x7c00u));
}
#endif

// Element i, which lies in the word.
fn raw_word(word: u32, i: u32) -> u32 {
#if RAW == 0
    return word;
#else
    let shift = i % (32u / RAW_BITS) * RAW_BITS;
#if RAW == 1
    return float16_value((word >> shift) & 0xffffu);
#elif RAW == 2
    return (word >> shift) << 16u;
#elif RAW == 4 || RAW == 6 || RAW == 8 || RAW == 10
    return bitcast<u32>(extractBits(bitcast<i32>(word), shift, RAW_BITS));
#else
    return extractBits(word, shift, RAW_BITS);
#endif
#endif
}
