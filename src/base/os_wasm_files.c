/* Files under WASI, for test programs and the command in Node: a mapping is a copy. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"

static bool read_all(int fd, uint8_t *data, size_t n) {
    for (size_t at = 0; at < n;) {
        const ssize_t got = read(fd, data + at, n - at);
        if (got <= 0) return false;
        at += (size_t)got;
    }
    return true;
}

dibit_status dbt_os_map(const char *path, const char *name, const uint8_t **data, uint64_t *bytes,
                        dibit_error *error) {
    const int fd = open(path, O_RDONLY);
    DBT_FAIL_IF(fd < 0, error, DIBIT_IO, "cannot open '%s': %s", name, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return dbt_fail(error, DIBIT_IO, "'%s' is not a regular file", name);
    }
    const uint64_t size = (uint64_t)st.st_size;
    uint8_t *const copy = size ? dbt_alloc(&dbt_default_allocator, size, 64) : NULL;
    const bool whole = !size || (copy && read_all(fd, copy, (size_t)size));
    close(fd);
    if (!whole) {
        dbt_release(&dbt_default_allocator, copy, size);
        return dbt_fail(error, DIBIT_IO, "cannot read '%s' of %llu bytes", name,
                        (unsigned long long)size);
    }
    *data = copy;
    *bytes = size;
    return DIBIT_OK;
}

/* Links are not followed, wherever they lead. */
dibit_status dbt_os_map_beside(const char *path, const char *location, const uint8_t **data,
                               uint64_t *bytes, dibit_error *error) {
    char file[1024];
    const char *const slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) + 1 : 0, m = strlen(location);
    DBT_FAIL_IF(n + m + 1 > sizeof file, error, DIBIT_IO, "the path of '%.80s' is too long",
                location);
    memcpy(file, path, n);
    memcpy(file + n, location, m + 1);
    for (size_t i = n; i <= n + m; i++) {
        const char c = file[i];
        if (c != '/' && c != 0) continue;
        struct stat st;
        file[i] = 0;
        const bool is_link = lstat(file, &st) == 0 && S_ISLNK(st.st_mode);
        file[i] = c;
        DBT_FAIL_IF(is_link, error, DIBIT_BAD_FILE,
                    "'%.200s' is a link, which this build does not follow", location);
    }
    return dbt_os_map(file, location, data, bytes, error);
}

void dbt_os_unmap(const void *data, uint64_t bytes) {
    dbt_release(&dbt_default_allocator, (void *)(uintptr_t)data, bytes);
}
