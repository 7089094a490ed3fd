"""Ask for memory before it is needed, inside numba kernels that jump about in it."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_BYTE, _INT = ir.IntType(8).as_pointer(), ir.IntType(32)
# LLVM calls the function by the type of its pointer, which is "ptr" wherever pointers have no types any more
_NAME = "llvm.prefetch.p0" if str(_BYTE) == "ptr" else "llvm.prefetch.p0i8"
_READ, _KEEP, _DATA = 0, 3, 1


def _prefetch(_context: Any, array: Any, index: Any) -> Any:
    """Start to load ``array[index]`` into the processor's cache; nothing waits for it, and nothing else happens."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), _BYTE)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, _NAME)  # type: ignore[no-untyped-call]
        builder.call(function, [place, _INT(_READ), _INT(_KEEP), _INT(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), code


prefetch: Any = intrinsic(_prefetch)
