// Keeps an integer within its type, as arithmetic on it wraps: u.mask and u.shift are dbt_gpu_narrow's.
fn narrow(v: i32) -> i32 {
    return (i32(u32(v) & u.mask) << u.shift) >> u.shift;
}
