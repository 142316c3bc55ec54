"""The tracer's public interface. Importing it starts nothing and costs next to nothing."""
from ._version import VERSION

__version__ = VERSION
__all__ = ['agent', 'batch_profiling', 'method_profiling', 'register_app']
