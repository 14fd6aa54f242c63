"""DTM with ViT-B/16 in 100 epochs, from which the ablations inherit.

Tables 8 to 11 do not print how long they pre-train. 100 epochs are chosen, as
in table 3: a third of the cost of the main runs, after which the paper's own
comparison of frameworks is drawn. All else is configs/dtm_vit-b_300e.py's.
"""

_base_ = [
    './models/dtm_vit-b.py',
    './datasets/imagenet_dtm.py',
    './schedules/adamw_1024_100e.py',
    './default_runtime.py',
]
