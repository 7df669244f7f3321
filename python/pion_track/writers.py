# SPDX-License-Identifier: Apache-2.0
"""One class per library: write(step, numbers, texts), close().

All are made of (folder, name, project, config): where files go, what the run and its project are
called, and its settings as a dictionary.
"""

import json

# what `--check` imports, and what the writer needs
MODULES = {
    "tensorboard": "tensorboard.summary.writer.event_file_writer",
    "wandb": "wandb",
    "trackio": "trackio",
}


class TensorBoard:
    """Event files in the folder. Needs neither TensorFlow nor torch."""

    def __init__(self, folder, name, project, config):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        self.writer = EventFileWriter(str(folder))
        if config:
            text = json.dumps(config, indent=1, sort_keys=True, default=str)
            self.write(0, {}, {"config": "\n".join("    " + line for line in text.splitlines())})

    def write(self, step, values, texts):
        rows = [self.summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        for name, text in texts.items():
            rows.append(self.text(name, text))
        if rows:
            self.writer.add_event(self.event(step=step, summary=self.summary(value=rows)))

    def text(self, name, text):
        from tensorboard.compat.proto import tensor_pb2, types_pb2
        from tensorboard.plugins.text.metadata import create_summary_metadata

        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()])
        metadata = create_summary_metadata(display_name=name, description="")
        return self.summary.Value(tag=name, tensor=tensor, metadata=metadata)

    def close(self):
        self.writer.close()


class WeightsAndBiases:
    """A run of the project; WANDB_MODE=offline stays on this machine."""

    def __init__(self, folder, name, project, config):
        import wandb

        self.run = wandb.init(project=project, name=name, dir=str(folder), config=config)
        # steps of our own: wandb's must not go back when a run is resumed
        self.run.define_metric("update")
        self.run.define_metric("*", step_metric="update")
        self.alert = self.run.alert if self.run.settings.mode == "online" else None

    def write(self, step, values, texts):
        if values:
            self.run.log({"update": step, **values})
        for text in texts.values() if self.alert else ():
            self.alert(title="pion", text=text)

    def close(self):
        self.run.finish()


class Trackio:
    """A run of the local Trackio project; its database lies in $TRACKIO_DIR."""

    def __init__(self, folder, name, project, config):
        import trackio

        self.trackio = trackio
        trackio.init(project=project, name=name, config=config)

    def write(self, step, values, texts):
        record = dict(values)
        record.update({f"text/{name}": text for name, text in texts.items()})
        if record:
            self.trackio.log(record, step=step)

    def close(self):
        self.trackio.finish()


WRITERS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
