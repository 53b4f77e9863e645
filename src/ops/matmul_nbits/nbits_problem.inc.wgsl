// The uniforms of every MatMulNBits shader; nbits_gpu.c has the same struct. B, scales and zero points are
// bound from a row on (a part of N, where they are too large for one binding): n counts from there.

struct Problem {
    M: u32,
    N: u32, // of Y, not of the part
    K: u32,
    k_blocks: u32,
    units: u32,          // of 32 codes that K touches
    row_units: u32,      // in a row of B: more, where the last block has units of padding
    block_shift: u32,    // log2(block_size)
    zero_row_bytes: u32, // of packed zero points
    n_begin: u32,        // the part's first row
    n_count: u32,        // its rows
    m_stride: u32,       // of int8 activations in scratch: M, rounded up
    norm_share: f32,     // 1 / K
    norm_epsilon: f32,
    second_row: u32,     // of a gate: where the second product's rows begin
#if TRACE == 1
    trace_m: u32, // the element of Y to trace, in this part
    trace_n: u32,
#endif
}

@group(0) @binding(0) var<uniform> problem: Problem;
