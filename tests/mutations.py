"""Faults that were put into the code on purpose, and the test that turns red for each (`test_mutations.py`)."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One replacement in one file; `before` occurs there once."""

    name: str
    file: str
    before: str
    after: str
    test: str  # as pytest takes it


FAKE_GPU = "tests/training/test_fake_gpu.py::"
STEP = FAKE_GPU + "test_a_step_waits_for_the_gpu_once_a_batch_and_copies_without_waiting"
PAGE = FAKE_GPU + "test_from_the_command_line_to_the_page"
ON_CPU = FAKE_GPU + "test_what_is_written_out_for_a_cpu_stays_there"
FORMAT = FAKE_GPU + "test_the_format_is_one_that_the_gpu_computes_in"
FLOAT16 = "tests/training/test_float16.py::"
ENGINE = "tests/training/test_trainer.py::"
SURVIVAL = "tests/training/test_survival.py::"

# Lines that only a GPU reaches, seen from a CPU.
ON_A_GPU = [
    Mutation(
        "a device without its index",
        "detr/training/device.py",
        'name = f"cuda:{world.local_rank if world.size > 1 else torch.cuda.current_device()}"',
        "pass",
        FAKE_GPU + "test_a_device_has_an_index_and_nothing_of_the_process_is_changed[cuda]",
    ),
    Mutation(
        "every process on the same GPU",
        "detr/training/device.py",
        "world.local_rank if world.size > 1 else ",
        "",
        FAKE_GPU + "test_more_processes_than_gpus_are_named",
    ),
    Mutation(
        "the current GPU is not chosen",
        "main.py",
        "torch.cuda.set_device(device)",
        "pass",
        FAKE_GPU + "test_two_gpus_are_one_run",
    ),
    Mutation(
        "malloc is tuned in a run on a GPU",
        "main.py",
        'if device.type == "cpu":',
        'if device.type == "cuda":',
        PAGE + "[Pascal]",
    ),
    Mutation(
        "malloc stays tuned in processes that load images",
        "detr/data/loader.py",
        "    restore_malloc()\n",
        "",
        FAKE_GPU + "test_malloc_is_tuned_where_the_model_runs_on_the_cpu_and_not_in_its_loaders",
    ),
    Mutation(
        "float16 on a GPU that is slow at it",
        "detr/training/device.py",
        "get_device_capability(device) >= (7, 0)",
        "get_device_capability(device) >= (6, 0)",
        FORMAT + "[capability1-float32]",
    ),
    Mutation(
        "emulated bfloat16",
        "detr/training/device.py",
        "is_bf16_supported(including_emulation=False)",
        "is_bf16_supported()",
        FORMAT + "[capability0-float16]",
    ),
    Mutation(
        "memory of the host in the log of a GPU",
        "detr/training/device.py",
        "return torch.cuda.max_memory_allocated(device) / 2**20",
        "pass",
        PAGE + "[Ampere]",
    ),
    Mutation(
        "batches that are not pinned",
        "main.py",
        'make_loader(data.train, train_sampler, args.num_workers, pin_memory=device.type == "cuda")',
        'make_loader(data.train, train_sampler, args.num_workers, pin_memory=device.type != "cuda")',
        PAGE + "[T4]",
    ),
    Mutation(
        "a copy of the mask that waits",
        "detr/structures.py",
        "self.padding_mask.to(device, non_blocking=True)",
        "self.padding_mask.to(device)",
        STEP + "[Ampere]",
    ),
    Mutation(
        "small copies that are not pinned",
        "detr/structures.py",
        "values.pin_memory() if is_cuda else values",
        "values",
        STEP + "[Ampere]",
    ),
    Mutation(
        "small copies that wait", "detr/structures.py", "non_blocking=is_cuda", "non_blocking=False", STEP + "[Ampere]"
    ),
    Mutation(
        "the host waits for each step",
        "detr/training/trainer.py",
        'finite.to("cpu", non_blocking=self.device.type == "cuda")',
        'finite.to("cpu")',
        STEP + "[T4]",
    ),
    Mutation(
        "a copy is read before it has arrived",
        "detr/training/trainer.py",
        "torch.cuda.synchronize(self.device)",
        "pass",
        STEP + "[Pascal]",
    ),
    Mutation(
        "the optimizer asks the host whether to step",
        "detr/training/trainer.py",
        'self.device.type in ("cpu", "cuda")',
        'self.device.type == "cpu"',
        STEP + "[Ampere-train]",
    ),
    Mutation(
        "resumed sums on the host",
        "detr/training/meters.py",
        'state["sums"].to(device)',
        'state["sums"]',
        STEP + "[Pascal-train]",
    ),
    Mutation(
        "attention that is written out for a CPU",
        "detr/models/cpu_kernels.py",
        'if query.device.type != "cpu":',
        "if False:",
        ON_CPU,
    ),
    Mutation(
        "dropout that is written out for a CPU",
        "detr/models/cpu_kernels.py",
        'if x.device.type != "cpu":',
        "if False:",
        ON_CPU,
    ),
    Mutation(
        "weight gradients that are written out for a CPU",
        "detr/models/cpu_kernels.py",
        'x.device.type != "cpu" or ',
        "",
        ON_CPU,
    ),
    Mutation(
        "depthwise convolutions in float32",
        "detr/models/backbone.py",
        ' > 1 and x.device.type == "cpu" and ',
        " > 1 and ",
        ON_CPU,
    ),
    Mutation(
        "heads in 16 bits",
        "detr/models/detr.py",
        "torch.autocast(decoded.device.type, enabled=False)",
        'torch.autocast("cpu" if decoded.device.type == "mps" else decoded.device.type, dtype=torch.bfloat16)',
        FAKE_GPU + "test_heads_and_losses_are_in_float32",
    ),
    Mutation(
        "random numbers of the GPU start again",
        "detr/models/weights.py",
        "torch.cuda.set_rng_state_all",
        "list",
        PAGE + "[T4]",
    ),
    Mutation(
        "no NCCL for tensors on a GPU",
        "detr/training/distributed.py",
        '"cpu:gloo,cuda:nccl" if has_nccl else "gloo"',
        '"gloo"',
        FAKE_GPU + "test_two_gpus_are_one_run",
    ),
    Mutation(
        "targets that stay on the host",
        "detr/structures.py",
        "x.to(device, non_blocking=True) if isinstance(x, Tensor) else x",
        "x",
        STEP + "[Ampere]",
    ),
]

# What the tests once did not see.
ELSEWHERE = [
    Mutation(
        "no EMA warm-up",
        "detr/training/ema.py",
        "min(self.decay, (1 + steps) / (10 + steps))",
        "self.decay",
        ENGINE + "test_the_average_of_the_weights_follows_its_formula_and_nothing_else_changes[0.999]",
    ),
    Mutation(
        "no clipping",
        "detr/training/trainer.py",
        "self.config.clip_max_norm or math.inf",
        "math.inf",
        ENGINE + "test_the_gradient_is_clipped_to_its_largest_norm[0.1]",
    ),
    Mutation(
        "each process evaluates its own BatchNorm statistics",
        "main.py",
        "    distributed.broadcast_batch_norm(trainer.detector)\n",
        "",
        "tests/training/test_distributed.py::test_all_processes_evaluate_the_same_statistics",
    ),
    Mutation(
        "a collapsed float16 scale goes unseen",
        "detr/training/trainer.py",
        "SMALLEST_SCALE = 1.0",
        "SMALLEST_SCALE = 0.0",
        FLOAT16 + "test_a_scale_that_collapses_is_named",
    ),
    Mutation(
        "clipped before it is unscaled",
        "detr/training/trainer.py",
        "        self.scaler.unscale_(self.optimizer)\n",
        "",
        FLOAT16 + "test_the_gradient_is_clipped_as_it_is_and_not_as_it_is_scaled[float16]",
    ),
    Mutation(
        "another mean",
        "detr/data/transforms.py",
        "IMAGENET_MEAN = (0.485, 0.456, 0.406)",
        "IMAGENET_MEAN = (0.5, 0.456, 0.406)",
        "tests/data/test_dataset.py::test_pixels_are_normalized_as_the_backbones_were_trained",
    ),
    Mutation(
        "another standard deviation",
        "detr/data/transforms.py",
        "IMAGENET_STD = (0.229, 0.224, 0.225)",
        "IMAGENET_STD = (0.229, 0.224, 0.229)",
        "tests/data/test_dataset.py::test_pixels_are_normalized_as_the_backbones_were_trained",
    ),
    Mutation(
        "evaluated at the first scale",
        "main.py",
        '{"scale": max(args.scales), ',
        '{"scale": args.scales[0], ',
        "tests/test_main.py::test_images_are_evaluated_at_the_largest_scale",
    ),
    Mutation(
        "predictions of the first best epoch only",
        "detr/training/run_folder.py",
        "            utils.write_json(self.path / PREDICTIONS, predictions)\n",
        "            if trainer.epochs_done == 1:\n"
        "                utils.write_json(self.path / PREDICTIONS, predictions)\n",
        SURVIVAL + "test_predictions_are_never_those_of_another_detector",
    ),
    Mutation(
        "predictions of an older detector after a kill",
        "detr/training/run_folder.py",
        "            (self.path / PREDICTIONS).unlink(missing_ok=True)  # a kill from here on leaves none\n",
        "",
        SURVIVAL + "test_predictions_are_never_those_of_another_detector",
    ),
    Mutation(
        "batches are shared in a thread whose errors reach nobody",
        "detr/data/loader.py",
        "if get_worker_info() is not None:",
        "if False:",
        SURVIVAL + "test_a_small_shared_memory_is_named",
    ),
    Mutation(
        "a wait that no signal ends",
        "utils.py",
        "        if self._is_waiting:\n",
        "        if False:\n",
        SURVIVAL + "test_a_run_that_waits_for_ever_can_be_stopped",
    ),
    Mutation(
        "paths compared by their spelling",
        "utils.py",
        "return Path(one).samefile(other)",
        "return str(one) == str(other)",
        "tests/test_main.py::test_the_file_to_start_from_is_not_deleted_however_it_is_spelled[--resume-absolute]",
    ),
    Mutation(
        "the raw weights of a run, not its EMA",
        "detr/models/weights.py",
        "in best_weights(checkpoint).items() if key not in CLASS_HEAD",
        'in checkpoint["model"].items() if key not in CLASS_HEAD',
        "tests/test_prep.py::test_the_weights_of_a_run_are_those_of_its_detector",
    ),
    Mutation(
        "every process downloads",
        "detr/training/distributed.py",
        "result = call() if is_first else None",
        "result = call()",
        "tests/training/test_distributed.py::test_weights_are_downloaded_once_for_all_processes",
    ),
    Mutation(
        "a lock on a file that is deleted",
        "detr/training/run_files.py",
        "if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):",
        "if True:",
        SURVIVAL + "test_a_folder_has_one_owner_also_where_its_lock_is_deleted_meanwhile",
    ),
]
MASKS, HEAD = "tests/data/test_masks.py::", "tests/models/test_mask_head.py::"
PARITY = HEAD + "test_masks_losses_and_gradients_equal_the_peer[small]"
OF_MASKS = [
    Mutation(
        "attention to the padding",
        "detr/models/mask_head.py",
        "scores = scores.masked_fill(padding_mask.flatten(1)[:, None, None], -torch.inf)",
        "pass",
        PARITY,
    ),
    Mutation(
        "a softmax for each head",
        "detr/models/mask_head.py",
        "scores.flatten(1).softmax(-1)",
        "scores.softmax(-1).flatten(1)",
        PARITY,
    ),
    Mutation(
        "the backbone's maps in the wrong order",
        "detr/models/mask_head.py",
        "zip(adapters, reversed(maps), strict=True)",
        "zip(reversed(adapters), maps, strict=True)",
        PARITY,
    ),
    Mutation(
        "the mask of another object",
        "detr/models/criterion.py",
        "targets.masks[starts[pairs.image] + pairs.target]",
        "targets.masks[starts[pairs.image]]",
        PARITY,
    ),
    Mutation(
        "masks for the last group of queries",
        "detr/models/matcher.py",
        "len(self.layer) - sum(matched[images:])",
        "len(self.layer)",
        HEAD + "test_groups_of_queries_leave_masks_to_the_first",
    ),
    Mutation(
        "outlines that are not mirrored",
        "detr/data/transforms.py",
        "return np.stack((width - moved[:, 0], moved[:, 1]), axis=1) if params.hflip else moved",
        "return moved",
        MASKS + "test_a_mask_at_its_own_size_is_what_coco_rasterizes[True]",
    ),
    Mutation(
        "what is pasted covers nothing",
        "detr/data/copy_paste.py",
        "together[:number] &= ~together[number]",
        "pass",
        MASKS + "test_what_is_pasted_covers_what_was_there",
    ),
    Mutation(
        "padding counts as part of the image",
        "detr/models/postprocess.py",
        "whole[..., : valid_hw[0], : valid_hw[1]]",
        "whole",
        HEAD + "test_masks_come_back_at_the_size_of_the_original",
    ),
]
MUTATIONS = ON_A_GPU + ELSEWHERE + OF_MASKS
