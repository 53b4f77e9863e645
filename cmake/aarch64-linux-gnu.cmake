# Cross build for 64-bit Arm Linux with Debian's compiler; programs run under user-mode qemu.
# Libraries besides libc lie in build/arm64-sysroot (tools/arm64-sysroot.sh).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

get_filename_component(dibit_sysroot ${CMAKE_CURRENT_LIST_DIR}/../build/arm64-sysroot ABSOLUTE)
set(dibit_sysroot_lib ${dibit_sysroot}/usr/lib/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH ${dibit_sysroot})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${dibit_sysroot_lib}/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${dibit_sysroot})
set(CMAKE_EXE_LINKER_FLAGS_INIT -Wl,-rpath-link,${dibit_sysroot_lib})
set(CMAKE_CROSSCOMPILING_EMULATOR
    qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=${dibit_sysroot_lib}:/usr/aarch64-linux-gnu/lib)
