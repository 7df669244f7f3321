// SPDX-License-Identifier: Apache-2.0
#include "lab/run/inspect.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "lab/files/tensor_file.h"
#include "lab/files/weight_index.h"
#include "pion/optim/routing_checks.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  // bytes; an index of 10^6 tensors has 100 MB
  constexpr std::uintmax_t kLargest = 256 << 20;
  std::error_code error;
  if (fs::file_size(path, error) > kLargest || error)
    throw std::invalid_argument("inspect: cannot read " + path.string());
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The shards that an index names, all beside it.
std::vector<fs::path> shards(const fs::path& index) {
  std::vector<fs::path> files;
  for (const std::string& name :
       parse_weight_index(read_text(index), "inspect: " + index.string()))
    files.push_back(index.parent_path() / name);
  return files;
}

std::vector<fs::path> model_files(const fs::path& model) {
  std::error_code error;
  if (fs::is_directory(model, error)) {
    if (fs::exists(model / "model.safetensors.index.json"))
      return shards(model / "model.safetensors.index.json");
    if (fs::exists(model / "model.safetensors")) return {model / "model.safetensors"};
    throw std::invalid_argument(
        "inspect: " + model.string() +
        " holds no model.safetensors and no model.safetensors.index.json");
  }
  if (!fs::exists(model, error))
    throw std::invalid_argument("inspect: no file " + model.string());
  if (model.extension() == ".json") return shards(model);
  return {model};
}

struct Located {
  std::size_t file;
  TensorRecord record;
};

// What the name says of the module; the file knows no types.
std::string module_type(const std::string& name, std::size_t dimensions) {
  const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (has("embed") || has("wte.") || has("wpe.")) return "Embedding";
  if (has("norm") || has("ln_") || has(".ln")) return "LayerNorm";
  if (dimensions == 4 && !has("expert")) return "Conv2d";
  if (dimensions == 2 && name.ends_with(".weight")) return "Linear";
  return "";
}

std::string dtype_name(std::string tag) {
  std::transform(tag.begin(), tag.end(), tag.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return tag;
}

// Types that a weight is trained in.
bool is_real(TensorType type) {
  return type == TensorType::kF16 || type == TensorType::kBF16 ||
         type == TensorType::kF32 || type == TensorType::kF64;
}

// sigma / ||.||_F of one block, descending.
struct Spectrum {
  double sigma_max, stable_rank, effective_rank, norm;
  std::vector<double> shares;  // sigma / ||.||_F
};

Spectrum spectrum_of(const torch::Tensor& block) {
  const torch::Tensor sigma =
      torch::linalg_svdvals(block.to(torch::kFloat64)).contiguous();
  std::vector<double> values(sigma.data_ptr<double>(),
                             sigma.data_ptr<double>() + sigma.numel());
  double squares = 0, entropy = 0;
  for (const double value : values) squares += value * value;
  Spectrum spectrum{values.empty() ? 0.0 : values.front(), 0, 0, std::sqrt(squares), {}};
  if (squares == 0) return spectrum;
  for (const double value : values) {
    const double share = value * value / squares;
    if (share > 0) entropy -= share * std::log(share);
    spectrum.shares.push_back(value / spectrum.norm);
  }
  spectrum.stable_rank = squares / (spectrum.sigma_max * spectrum.sigma_max);
  spectrum.effective_rank = std::exp(entropy);
  return spectrum;
}

// Sum of f(s)^2: what ||O||_F^2 would be.
double passed(const Spectrum& spectrum, const SpectralMap& map) {
  const double scale =
      map.normalization == Normalization::kSpectral && spectrum.sigma_max > 0
          ? spectrum.norm / spectrum.sigma_max
          : 1.0;
  double sum = 0;
  for (const double share : spectrum.shares) {
    const double value = evaluate(map.sequence, share * scale);
    sum += value * value;
  }
  return sum;
}

std::string spectra_table(const Routing& routing,
                          const std::map<std::string, Located>& where,
                          const std::vector<SafetensorsFile>& files) {
  std::ostringstream out;
  char line[256];
  std::snprintf(line, sizeof line, "%-48s %6s %13s %10s %8s %10s %12s\n", "matrix",
                "blocks", "block", "sigma_max", "stable", "effective", "Pion passes");
  out << "\nSingular values: largest over blocks; ranks and directions as means per "
         "block\n"
      << line;
  for (const Route& route : routing.routes) {
    if (!is_matrix_rule(route.rule) || !route.parameter.tied_to.empty()) continue;
    const Located& located = where.at(route.parameter.name);
    torch::Tensor weight = read_tensor(files[located.file], located.record);
    if (weight.dim() < 2 || weight.numel() == 0) continue;
    if (weight.dim() > 2 && route.role != Role::kExpertStack) weight = weight.flatten(1);
    const torch::Tensor stack =
        weight.dim() == 2 ? weight.unsqueeze(0) : weight.flatten(0, -3);
    // the matrices of a stack are its blocks already
    const HeadLayout layout =
        route.role == Role::kExpertStack ? HeadLayout{} : route.heads;
    double sigma_max = 0, stable = 0, effective = 0, directions = 0;
    int count = 0;
    Block shape{};
    for (std::int64_t i = 0; i < stack.size(0); ++i)
      for (const Block& block : head_blocks(layout, stack.size(1), stack.size(2))) {
        const Spectrum spectrum = spectrum_of(
            stack[i].narrow(0, block.row, block.rows).narrow(1, block.col, block.cols));
        sigma_max = std::max(sigma_max, spectrum.sigma_max);
        stable += spectrum.stable_rank, effective += spectrum.effective_rank;
        directions += passed(spectrum, rule_map(PionRule{}, block.rows, block.cols));
        shape = block;
        ++count;
      }
    const std::string size =
        std::to_string(shape.rows) + "x" + std::to_string(shape.cols);
    const std::string of = " of " + std::to_string(std::min(shape.rows, shape.cols));
    char first[32];
    std::snprintf(first, sizeof first, "%.1f", directions / count);
    std::snprintf(line, sizeof line, "%-48s %6d %13s %10.4g %8.1f %10.1f %12s\n",
                  route.parameter.name.c_str(), count, size.c_str(), sigma_max,
                  stable / count, effective / count, (first + of).c_str());
    out << line;
  }
  return out.str();
}

}  // namespace

std::string inspect(const InspectOptions& options) {
  std::vector<SafetensorsFile> files;
  std::map<std::string, Located> where;
  std::vector<ParameterDescription> parameters;
  std::string left_out;
  for (const fs::path& path : model_files(options.model)) {
    files.emplace_back(path);
    for (const auto& [name, record] : files.back().header().tensors) {
      if (!where.emplace(name, Located{files.size() - 1, record}).second)
        throw std::invalid_argument("inspect: tensor \"" + name +
                                    "\" is in two files, the second is " + path.string());
      if (is_real(record.type))
        parameters.push_back({name, record.shape, module_type(name, record.shape.size()),
                              "", dtype_name(record.tag)});
      else
        left_out +=
            "  " + name + "  " + shape_text(record.shape) + "  " + record.tag + "\n";
    }
  }
  RoutingOptions routing_options;
  for (const ParameterDescription& p : parameters) {  // a file cannot be asked
    if (p.shape.size() > 3 && p.module_type.empty())
      routing_options.overrides.emplace_back(p.name, "stack");
  }
  fs::path config = options.config;
  const fs::path beside =
      (fs::is_directory(options.model) ? options.model : options.model.parent_path()) /
      "config.json";
  if (config.empty() && fs::exists(beside)) config = beside;
  if (!config.empty())
    routing_options.attention = attention_shape_from_config(read_text(config));
  const Routing routing = options.preset.empty()
                              ? route(parameters, routing_options)
                              : route_preset(parameters, options.preset, routing_options);
  std::string text = routing.table();
  if (!left_out.empty())
    text += "\nLeft out, since no optimizer steps numbers of these types:\n" + left_out;
  if (options.spectra) text += spectra_table(routing, where, files);
  return text;
}

}  // namespace pion::lab
