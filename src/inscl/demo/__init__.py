"""The bundled demo: six small tasks, and the streams that `inscl demo` runs over them."""
