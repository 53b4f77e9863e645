// Dots of four int8 with four int8, in the bytes of words.

#if DOT4 == 1
fn dot_bytes(x: u32, y: u32) -> i32 {
    return dot4I8Packed(x, y);
}
#else
fn signed_bytes(x: u32) -> vec4<i32> {
    return vec4<i32>(bitcast<i32>(x << 24u), bitcast<i32>(x << 16u), bitcast<i32>(x << 8u),
                     bitcast<i32>(x)) >> vec4<u32>(24u);
}

fn dot_bytes(x: u32, y: u32) -> i32 {
    return dot(signed_bytes(x), signed_bytes(y));
}
#endif

fn dot_rows(x: u32, w: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot_bytes(x, w.x), dot_bytes(x, w.y), dot_bytes(x, w.z), dot_bytes(x, w.w));
}
