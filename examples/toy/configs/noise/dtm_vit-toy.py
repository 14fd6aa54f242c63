"""DTM on the toy dataset, of a teacher whose tokens disagree in space.

``tools/study/noise.py`` runs it and the three beside it over kinds and strengths of
perturbation.
Hardware:  any CPU
Command:   tools/dist_train.sh examples/toy/configs/noise/dtm_vit-toy.py 1 \\
               --cfg-options model.target_generator.strength=1
"""

_base_ = ['../dtm_vit-toy.py']

model = dict(
    target_generator=dict(
        _delete_=True,
        type='PerturbedGenerator',
        teacher=_base_.model.target_generator,
        kind='independent',
        strength=0.0,
    )
)
train_dataloader = dict(batch_size=32)  # on 1 process
