"""Models in flight: found, loaded, taken apart, put together again, counted and saved."""

from compressbench.models.quiet_logs import drop_messages_of_torchao

drop_messages_of_torchao()
