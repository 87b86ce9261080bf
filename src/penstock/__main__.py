"""The command `penstock`, and `python -m penstock`.

Ctrl-C while modules are imported, in the first tenths of a second, exits quietly with status 130.
Python itself starts before this module, for about 15 ms; what it prints at an interrupt then cannot
be changed here.
"""

try:
    from penstock.process_signals import exit_at_interrupt

    exit_at_interrupt()
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["main"]


def main() -> None:
    """Import the command line, and run it."""
    from penstock.cli import main as run

    try:
        run()
    finally:
        exit_at_interrupt()  # also while the interpreter shuts down


if __name__ == "__main__":
    main()
