// The index of a workgroup that dbt_gpu_grid laid out in x and y. It may be beyond the number asked for.
fn grid_index(workgroup_id: vec3<u32>, num_workgroups: vec3<u32>) -> u32 {
    return workgroup_id.x + workgroup_id.y * num_workgroups.x;
}
