"""What all tasks on a data set share: where its samples come from, and that training never sees the evaluation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from compressbench.data.sources import Form, HubSource, check_source, locate
from compressbench.tasks.declared import Declared
from compressbench.tasks.leakage import refuse_evaluation_data


class FromData(Declared):
    """`form` says what the data is read as: samples (a table) or one text."""

    form: ClassVar[Form]

    data: str = Field(description="embedded:NAME, a local file or folder, or a Hub id")
    split: str = "test"
    revision: str | None = None
    config: str | None = None
    train_split: str = "train"

    def check(self, *, training: bool = False) -> None:
        """Raise DataError if the data isn't there; reads no samples and uses no network."""
        check_source(self.data, self.split, form=self.form)
        if training:
            check_source(self.data, self.train_split, form=self.form)
            refuse_evaluation_data(self.data, self.split, self.train_split)

    @property
    def is_on_hub(self) -> bool:
        return isinstance(locate(self.data, self.split), HubSource)
