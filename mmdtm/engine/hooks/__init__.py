"""Hooks of the runner."""

from .checkpoint_hook import AtomicCheckpointHook
from .data_check_hook import DataCheckHook
from .deferred_log_hook import DeferredLogHook
from .feature_probe_hook import FeatureProbeHook
from .morphing_visual_hook import MorphingVisualHook
from .non_finite_loss_hook import NonFiniteLossHook
from .preemption_hook import PreemptionHook
from .run_record_hook import RunRecordHook
from .throughput_hook import ThroughputHook
from .watchdog_hook import WatchdogHook

__all__ = [
    'AtomicCheckpointHook',
    'DataCheckHook',
    'DeferredLogHook',
    'FeatureProbeHook',
    'MorphingVisualHook',
    'NonFiniteLossHook',
    'PreemptionHook',
    'RunRecordHook',
    'ThroughputHook',
    'WatchdogHook',
]
