"""Callbacks in real trainings: one step per optimiser step, everything logged, the monitor left whatever happens."""

import gc
import math

import geoact.torch
import pytest
import torch
from geoact.torch.reading import SUMMARY
from geoact.torch.sinks import Memory
from support.standins import Counted, FakeMonitor
from torch import nn

REAL = getattr(geoact.torch, "instrument", FakeMonitor)


class Trouble(Exception):
    """Raised in the middle of a training."""


@pytest.fixture
def monitors(monkeypatch):
    """Every monitor that was made, in order: the real one where there is one."""
    made = []

    def instrument(model, **options):
        made.append(Counted(REAL(model, **options), model, options))
        return made[-1]

    monkeypatch.setattr(geoact.torch, "instrument", instrument, raising=False)
    return made


def assert_logged(logged, readings, scalars=SUMMARY):
    """Each reading was logged once, with the chosen scalars of every layer that were measured."""
    assert len(logged) == len(readings) > 0
    for values, reading in zip(logged, readings, strict=True):
        expected = {
            f"geoact/{layer.name}/{name}": layer.scalars()[name]
            for layer in reading
            for name in scalars
            if not math.isnan(layer.scalars()[name])
        }
        assert expected
        found = {name: value for name, value in values.items() if name.startswith("geoact/")}
        assert found.pop("geoact/alerts") == len(reading.alerts)
        assert set(found) == set(expected)
        assert found == pytest.approx(expected, rel=1e-6)


def state(model):
    """What a monitor may change of a layer while it is entered: its class, attributes and hooks."""
    return [
        (name, type(module), sorted(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
        if not list(module.children())
    ]


# --- Lightning ---

# Advice about the size of the example, and torch's pytree, which Lightning uses in a way that torch has deprecated
LIGHTNING = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]


def quiet(test):
    for mark in LIGHTNING:
        test = mark(test)
    return test


def fit(callback, tmp_path, *, fail_at=None, **options):
    """Eight batches of four; returns what the logger got, as (step, values), and the module."""
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers.logger import Logger

    class Kept(Logger):
        name, version = "kept", 0

        def __init__(self):
            super().__init__()
            self.logged = []

        def log_metrics(self, metrics, step=None):
            self.logged.append((step, dict(metrics)))

        def log_hyperparams(self, *args, **kwargs):
            pass

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))

        def training_step(self, batch, index):
            if index == fail_at:
                raise Trouble
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    logger, module = Kept(), Module()
    data = torch.utils.data.TensorDataset(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=[logger],
        callbacks=[callback],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **options,
    )
    before = state(module.net)
    failed = None
    try:
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
    except Trouble as error:
        failed = error
    assert (failed is None) == (fail_at is None)
    assert state(module.net) == before
    return logger.logged, module


def lightning_callback(**options):
    pytest.importorskip("lightning.pytorch")
    from geoact.torch.callbacks.lightning import GeoactCallback

    return GeoactCallback(**options)


@quiet
@pytest.mark.parametrize(("accumulate", "steps"), [(1, 8), (2, 4), (3, 3)])
def test_lightning_steps_once_per_optimiser_step_and_logs_each_reading(monitors, tmp_path, accumulate, steps):
    memory = Memory()
    callback = lightning_callback(per="channel", sinks=[memory])
    logged, module = fit(callback, tmp_path, accumulate_grad_batches=accumulate)
    (monitor,) = monitors
    assert monitor.model is module
    assert monitor.options == {"when": "training", "per": "channel", "sinks": [memory]}
    assert (monitor.entered, monitor.steps, monitor.exits) == (1, steps, [None])
    assert callback.monitor is monitor
    assert len(memory.readings) > 0
    assert [layer.name for layer in memory.readings[-1]] == ["net.1", "net.3"]
    assert_logged([values for _, values in logged], memory.readings)
    assert [step for step, _ in logged] == list(range(1, steps + 1))


@quiet
def test_lightning_leaves_the_monitor_when_the_training_raises(monitors, tmp_path):
    memory = Memory()
    fit(lightning_callback(sinks=[memory]), tmp_path, fail_at=2)
    (monitor,) = monitors
    assert (monitor.steps, monitor.exits) == (2, [Trouble])


@quiet
def test_lightning_logs_the_scalars_that_were_chosen(monitors, tmp_path):
    memory = Memory()
    logged, _ = fit(lightning_callback(scalars=("zero", "sd_x"), sinks=[memory]), tmp_path)
    assert_logged([values for _, values in logged], memory.readings, ("zero", "sd_x"))
    with pytest.raises(ValueError, match="^scalars has 'speed'"):
        lightning_callback(scalars=["speed"])
    with pytest.raises(TypeError, match="^scalars must be a sequence"):
        lightning_callback(scalars="zero")


@quiet
def test_a_reading_is_logged_once_although_it_stays_the_last_one(monitors, tmp_path):
    memory = Memory()
    logged, _ = fit(lightning_callback(every=3, sinks=[memory]), tmp_path)
    assert monitors[0].steps == 8
    assert [step for step, _ in logged] == [1, 4, 7]
    assert_logged([values for _, values in logged], memory.readings)


# --- transformers ---


class Words(torch.utils.data.Dataset):
    """Twelve sentences of random words; the one at ``fail_at`` cannot be read."""

    def __init__(self, fail_at=None):
        self.fail_at = fail_at

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == self.fail_at:
            raise Trouble
        words = torch.randint(0, 30, (6,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": index % 2}


def trainer_of(tmp_path, *, fail_at=None, accumulate=1, log_every=1):
    """A trainer of a tiny BERT over six batches of two, in their order."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_act="relu",
        max_position_embeddings=16,
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,
        logging_steps=log_every,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    return InOrder(model=model, args=arguments, train_dataset=Words(fail_at))


def trainer_callback(*args, **options):
    pytest.importorskip("transformers")
    from geoact.torch.callbacks.transformers import GeoactTrainerCallback

    return GeoactTrainerCallback(*args, **options)


def history(trainer):
    return [entry for entry in trainer.state.log_history if "geoact/alerts" in entry]


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 6), (2, 3)])
@pytest.mark.parametrize("given", [True, False], ids=["trainer", "alone"])
def test_trainer_steps_once_per_optimiser_step_and_logs_each_reading(monitors, tmp_path, accumulate, steps, given):
    memory = Memory()
    trainer = trainer_of(tmp_path, accumulate=accumulate)
    before = state(trainer.model)
    callback = trainer_callback(*[trainer] * given, per="channel", sinks=[memory])
    trainer.add_callback(callback)
    trainer.train()
    (monitor,) = monitors
    assert monitor.model is trainer.model
    assert monitor.options == {"when": "training", "per": "channel", "sinks": [memory]}
    assert (monitor.entered, monitor.steps, monitor.exits) == (1, steps, [None])
    names = [f"bert.encoder.layer.{i}.intermediate.intermediate_act_fn" for i in range(2)]
    # the pooler's tanh is a layer as well where the monitor knows more than ReLU
    assert [layer.name for layer in memory.readings[-1] if layer.activation == "relu"] == names
    assert_logged(history(trainer), memory.readings)
    assert [entry["step"] for entry in history(trainer)] == list(range(1, steps + 1))
    # the Trainer's own logs are all there
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == list(range(1, steps + 1))
    assert state(trainer.model) == before


def test_trainer_reports_to_the_other_callbacks(monitors, tmp_path):
    import transformers

    heard = []

    class Listener(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            heard.append(dict(logs))

    memory = Memory()
    trainer = trainer_of(tmp_path, log_every=3)
    trainer.add_callback(Listener())
    trainer.add_callback(trainer_callback(trainer, scalars=("zero",), sinks=[memory]))
    trainer.train()
    assert_logged([logs for logs in heard if "geoact/alerts" in logs], memory.readings, ("zero",))
    assert sum("loss" in logs for logs in heard) == 2


def test_a_training_that_raises_leaves_the_monitor_at_once_in_a_with_block(monitors, tmp_path):
    trainer = trainer_of(tmp_path, fail_at=6)
    before = state(trainer.model)
    callback = trainer_callback(trainer)
    trainer.add_callback(callback)
    with pytest.raises(Trouble), callback:
        trainer.train()
    (monitor,) = monitors
    assert monitor.exits == [Trouble]
    assert 0 < monitor.steps < 6
    assert state(trainer.model) == before


def test_a_training_that_raises_leaves_the_monitor_at_the_next_one_at_the_latest(monitors, tmp_path):
    trainer = trainer_of(tmp_path, fail_at=6)
    before = state(trainer.model)
    trainer.add_callback(trainer_callback())
    with pytest.raises(Trouble):
        trainer.train()
    assert monitors[0].exits == []
    trainer.train_dataset.fail_at = None
    trainer.train()
    assert [monitor.exits for monitor in monitors] == [[None], [None]]
    assert monitors[1].steps == 6
    assert state(trainer.model) == before


def test_a_forgotten_callback_leaves_its_monitor_when_it_is_collected(monitors, tmp_path):
    trainer = trainer_of(tmp_path, fail_at=6)
    model = trainer.model
    before = state(model)
    trainer.add_callback(trainer_callback())
    with pytest.raises(Trouble):
        trainer.train()
    assert state(model) != before
    del trainer
    gc.collect()
    assert monitors[0].exits == [None]
    assert state(model) == before


def test_a_wrong_trainer_is_refused():
    with pytest.raises(TypeError, match="^trainer must be a transformers.Trainer"):
        trainer_callback("trainer")
