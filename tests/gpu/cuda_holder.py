"""Hold memory of a GPU until standard input ends: ``python -m tests.gpu.cuda_holder BYTES``.

Through the driver's own API (``libcuda.so.1``), so that no framework has to be installed.
"""

import ctypes
import sys


def main() -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    for call, arguments in (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), 0)),
        ("cuDevicePrimaryCtxRetain", (ctypes.byref(context), device)),
        ("cuCtxSetCurrent", (context,)),
        ("cuMemAlloc_v2", (ctypes.byref(address), ctypes.c_size_t(int(sys.argv[1])))),
    ):
        code = getattr(cuda, call)(*arguments)
        if code != 0:
            sys.exit(f"{call}: CUDA says {code}")
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
