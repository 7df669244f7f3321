// SPDX-License-Identifier: Apache-2.0
#include "lab/run/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "lab/files/durable_file.h"
#include "lab/files/json_text.h"
#include "lab/files/plain_name.h"
#include "lab/files/tensor_file.h"

namespace pion::lab {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kLargestState = 256 << 20;         // bytes of state.json
constexpr char kGenerator[] = "pion.torch_cpu_generator";  // in task.safetensors
constexpr std::string_view kUnfinished = ".unfinished_";  // temporary names begin with it
constexpr std::string_view kStep = "step_";

// "step_12" -> 12.
std::optional<std::int64_t> step_of(const std::string& name) {
  if (name.rfind(kStep, 0) != 0) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kStep.size(), end, step);
  if (error != std::errc{} || stop != end || step < 0) return std::nullopt;
  return step;
}

fs::path step_path(const fs::path& directory, std::int64_t step) {
  return directory / (std::string(kStep) + std::to_string(step));
}

std::string remedy(const fs::path& checkpoint) {
  const std::vector<std::int64_t> steps = checkpoint_steps(checkpoint.parent_path());
  const std::optional<std::int64_t> own = step_of(checkpoint.filename().string());
  std::string earlier = "start over with another --out";
  for (const std::int64_t step : steps)
    if (own && step < *own) earlier = "resume from step " + std::to_string(step);
  return "; remove " + checkpoint.string() + " to " + earlier;
}

void write_files(const fs::path& directory, const CheckpointHead& head, Task& task,
                 const Optimizer& optimizer) {
  write_tensors(directory / "model.safetensors", module_tensors(task.model()),
                {{"format", "pt"}});
  write_tensors(directory / "optimizer.safetensors", optimizer.state_tensors());
  TensorMap tensors;
  Json state = Json::object();
  task.save(tensors, state);
  tensors[kGenerator] = at::detail::getDefaultCPUGenerator().get_state();
  write_tensors(directory / "task.safetensors", tensors);
  const Json json = {{"format", kCheckpointFormat},
                     {"task", head.task},
                     {"step", head.step},
                     {"metrics_bytes", head.metrics_bytes},
                     {"wall_seconds", head.wall_seconds},
                     {"state", state}};
  DurableFile file(directory / "state.json", DurableFile::Mode::kCreate);
  file.write(json_text(json, 1));
  file.close();
  sync_directory(directory);
}

// The message of a c10::Error without its stack.
template <class F>
void with_file(const fs::path& file, const fs::path& checkpoint, F action) {
  try {
    action();
  } catch (const c10::Error& error) {
    throw std::invalid_argument(file.string() + ": " + error.what_without_backtrace() +
                                remedy(checkpoint));
  } catch (const std::exception& error) {
    const std::string what = error.what();
    const std::string where =
        what.rfind(file.string(), 0) == 0 ? "" : file.string() + ": ";
    throw std::invalid_argument(where + what + remedy(checkpoint));
  }
}

}  // namespace

std::vector<std::int64_t> checkpoint_steps(const fs::path& directory) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
    if (const auto step = step_of(entry.path().filename().string());
        step && entry.is_directory())
      steps.push_back(*step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

void clean_checkpoints(const fs::path& directory) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
    if (entry.path().filename().string().rfind(kUnfinished, 0) == 0)
      leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) fs::remove_all(path, error);
}

void save_checkpoint(const fs::path& directory, const CheckpointHead& head, Task& task,
                     const Optimizer& optimizer, std::int64_t keep) {
  const fs::path target = step_path(directory, head.step);
  const fs::path unfinished =
      directory / (std::string(kUnfinished) + std::to_string(head.step));
  try {
    refuse_link(directory);
    refuse_link(unfinished);
    fs::create_directory(directory);  // not the run's own, which someone has removed
    fs::create_directory(unfinished);
    write_files(unfinished, head, task, optimizer);
    if (fs::exists(target)) {
      // the same step again: the two change places at once, then the old one goes
      if (::renameat2(AT_FDCWD, unfinished.c_str(), AT_FDCWD, target.c_str(),
                      RENAME_EXCHANGE) != 0)
        throw std::runtime_error("cannot replace " + target.string() + ": " +
                                 std::strerror(errno));
      fs::remove_all(unfinished);
    } else {
      fs::rename(unfinished, target);
    }
  } catch (const std::exception& error) {
    std::error_code ignored;
    fs::remove_all(unfinished, ignored);
    throw std::runtime_error(
        "checkpoint of step " + std::to_string(head.step) + " not saved: " +
        error.what() + "; earlier checkpoints are intact, continue later with --resume");
  }
  sync_directory(directory);
  const std::vector<std::int64_t> steps = checkpoint_steps(directory);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < steps.size(); ++i) {
    // renamed first, so that a kill in the middle leaves no half-deleted checkpoint
    const std::string name = "delete_" + std::to_string(steps[i]);
    const fs::path old = directory / (std::string(kUnfinished) + name);
    fs::rename(step_path(directory, steps[i]), old);
    fs::remove_all(old);
  }
}

Checkpoint read_checkpoint(const fs::path& path, const std::string& task) {
  const fs::path file = path / "state.json";
  Checkpoint checkpoint;
  with_file(file, path, [&] {
    std::error_code error;
    if (!fs::is_regular_file(file, error)) throw std::invalid_argument("is missing");
    if (fs::file_size(file, error) > kLargestState)
      throw std::invalid_argument("is larger than 256 MiB");
    std::ifstream stream(file, std::ios::binary);
    std::ostringstream text;
    text << stream.rdbuf();
    checkpoint = parse_checkpoint_state(text.str(), file.string());
    if (checkpoint.head.task != task)
      throw std::invalid_argument("is of task \"" + checkpoint.head.task +
                                  "\", the run of \"" + task + "\"");
    if (step_of(path.filename().string()) != checkpoint.head.step)
      throw std::invalid_argument("is of step " + std::to_string(checkpoint.head.step));
  });
  checkpoint.path = path;
  return checkpoint;
}

void load_checkpoint_model(const Checkpoint& checkpoint, Task& task) {
  const fs::path file = checkpoint.path / "model.safetensors";
  with_file(file, checkpoint.path, [&] {
    load_module_tensors(task.model(), read_tensors(file), file.string());
  });
}

void load_checkpoint(const Checkpoint& checkpoint, Task& task, Optimizer& optimizer) {
  load_checkpoint_model(checkpoint, task);
  const fs::path optimizer_file = checkpoint.path / "optimizer.safetensors";
  with_file(optimizer_file, checkpoint.path,
            [&] { optimizer.load_state_tensors(read_tensors(optimizer_file)); });
  const fs::path task_file = checkpoint.path / "task.safetensors";
  with_file(task_file, checkpoint.path, [&] {
    TensorMap tensors = read_tensors(task_file);
    const auto generator = tensors.find(kGenerator);
    if (generator == tensors.end())
      throw std::invalid_argument("lacks the state of LibTorch's generator");
    at::Generator torch_generator = at::detail::getDefaultCPUGenerator();
    torch_generator.set_state(generator->second);
    tensors.erase(generator);
    task.load(tensors, checkpoint.task_state);
  });
}

}  // namespace pion::lab
