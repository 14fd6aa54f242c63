"""DTM with a ViT-B/16 student and OpenAI's CLIP ViT-B/16 as its teacher."""

model = dict(
    type='DTM',
    data_preprocessor=dict(
        type='DTMDataPreprocessor',
        # The student's: ImageNet's. The teacher brings its own.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type='DTMPretrainViT',
        arch='base',  # table 12: 12 layers, width 768, 12 heads, FFN 3072
        img_size=224,  # table 12
        patch_size=16,  # table 12
        use_rel_pos_bias=True,  # table 12: per layer ...
        use_shared_rel_pos_bias=True,  # ... and shared; no absolute position
        layer_scale_init_value=0.1,  # table 12: 0.1 (S, B), 1e-5 (L)
        drop_path_rate=0.0,  # table 12
    ),
    head=dict(type='DTMHead', loss=dict(type='DTMLoss', distance='cosine')),  # table 10
    target_generator=dict(
        type='OpenCLIPGenerator',
        model='ViT-B-16-quickgelu',  # section 5: CLIP ViT-B/16 for S, B and L
        pretrained='openai',  # or the path of a local file
    ),
    morphing=dict(
        type='BipartiteMorphing',
        levels=2,  # L: not printed; the release's default
        num_iters=(1, 14),  # k: not printed; the release's default
        # N_m is drawn from 1..196, and 8..196 come out; reach_num_morphed=True
        # reaches all (docs/fidelity.md).
    ),
)
