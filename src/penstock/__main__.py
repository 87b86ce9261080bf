"""The command `penstock`, and `python -m penstock`.

Ctrl-C during the imports, in the first tenths of a second, ends the process quietly, with status
130. Before this module, Python itself starts, for some 15 ms; an interrupt in that time shows
Python's own messages.
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
