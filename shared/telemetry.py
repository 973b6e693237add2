"""Logging: one event per line, as key=value fields; never photo bytes, embeddings or the text of a listing."""

import logging
import sys


def configure_logging(level: int = logging.INFO) -> None:
    """Send the process's log to standard error; each entry point calls it once."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )
    for chatty in ("celery", "kombu", "amqp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def event(logger: logging.Logger, name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one event.

        event(_LOG, "job_finished", job_id=job.id, seconds=0.12)

    Args:
        logger: of the module.
        name: of the event.
        level: of `logging`.
        fields: values; those with white space are quoted.
    """
    logger.log(level, " ".join([f"event={name}", *(f"{key}={_quoted(value)}" for key, value in fields.items())]))


def _quoted(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    # Control characters would let an input forge a second log line.
    return repr(text) if not text.isprintable() or " " in text or not text else text
