// Rotary position embedding of one head's row, as rotary.h has it: every element turns with a partner.

struct Rotary {
    half: u32,        // pairs that turn; elements from 2 * half on pass
    interleaved: u32, // pairs are neighbours, else `half` apart
}

struct Turn {
    partner: u32, // the element that it turns with
    pair: u32,    // column of the angles' cosines and sines
    first: bool,
}

// For element d below 2 * half.
fn rotary_turn(r: Rotary, d: u32) -> Turn {
    if r.interleaved == 1u {
        return Turn(d ^ 1u, d / 2u, (d & 1u) == 0u);
    }
    let first = d < r.half;
    return Turn(select(d - r.half, d + r.half, first), select(d - r.half, d, first), first);
}

fn rotary_turned(t: Turn, x: f32, partner: f32, cosine: f32, sine: f32) -> f32 {
    return x * cosine + select(partner, -partner, t.first) * sine;
}
