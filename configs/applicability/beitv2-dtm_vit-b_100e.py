"""BEiT v2 with DTM, ViT-B/16, 100 epochs.

DTM's loss against CLIP's tokens is added to BEiT v2's two, with weight 1.
Rows:      3: BEiT v2 + DTM
Stage:     pre-training
Then:      configs/finetune/dtm_vit-b_100e_in1k.py
Chosen:    how they join, since the codes stay BEiT v2's own target; not printed
Weights:   checkpoints/vqkd_encoder.pth, see beitv2_vit-b_100e.py
Hardware:  8 GPUs, 128 images each
Command:   tools/dist_train.sh configs/applicability/beitv2-dtm_vit-b_100e.py 8
"""

_base_ = ['./beitv2_vit-b_100e.py']

model = dict(
    dtm=dict(
        target_generator=dict(
            type='OpenCLIPGenerator', model='ViT-B-16-quickgelu', pretrained='openai'
        ),
        morphing=dict(type='BipartiteMorphing'),
        weight=1.0,  # not printed
    )
)
