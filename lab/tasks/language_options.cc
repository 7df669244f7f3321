// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/language_options.h"

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <stdexcept>

#include "lab/files/shown_text.h"
#include "lab/run/recipe_keys.h"

namespace pion::lab {
namespace {

// Keys of `schema` that are not at their defaults must be read: `because` says why these
// are not.
void refuse_unread(const Recipe& recipe, const Schema& schema,
                   const std::vector<std::string>& unread, const std::string& because) {
  for (const Key& key : schema) {
    if (std::find(unread.begin(), unread.end(), key.name) == unread.end()) continue;
    const std::string now = recipe.value_text(key.name);
    const std::string usual = value_to_text(key.fallback);
    if (now != usual)
      throw std::invalid_argument(key.name + " = " + now + " has no effect: " + because +
                                  "; leave it out of recipe and flags");
  }
}

const std::vector<std::string> kShapeKeys = {
    "model.architecture", "model.hidden_size",       "model.layers",
    "model.heads",        "model.kv_heads",          "model.head_dim",
    "model.mlp_size",     "model.context",           "model.tied",
    "model.rope_theta",   "model.initializer_range",
};
const std::vector<std::string> kArithmeticKeys = {
    "data.kinds", "data.forget_carry", "data.unboxed", "data.held_out", "data.seed"};

LmArchitecture architecture_named(const std::string& name) {
  if (name == "llama") return LmArchitecture::kLlama;
  return name == "qwen3" ? LmArchitecture::kQwen3 : LmArchitecture::kQwen2;
}

CausalLmConfig fresh_config(const Recipe& r) {
  CausalLmConfig c;
  c.architecture = architecture_named(r.text("model.architecture"));
  c.hidden_size = r.integer("model.hidden_size");
  c.intermediate_size = r.integer("model.mlp_size");
  c.num_hidden_layers = r.integer("model.layers");
  c.num_attention_heads = r.integer("model.heads");
  c.num_key_value_heads = r.integer("model.kv_heads");
  c.head_dim = r.integer("model.head_dim");
  c.max_position_embeddings = r.integer("model.context");
  c.tie_word_embeddings = r.flag("model.tied");
  c.attention_bias = c.architecture == LmArchitecture::kQwen2;
  c.rope_theta = r.number("model.rope_theta");
  c.initializer_range = r.number("model.initializer_range");
  if (!r.text("model.dtype").empty()) c.dtype = r.text("model.dtype");
  return c;
}

}  // namespace

Schema model_keys() {
  const CausalLmConfig c;
  return {
      word("model.folder", "", "Hugging Face folder to begin with; \"\": none"),
      word("model.start", "",
           "SFT recipe whose policy to begin with, trained once and kept; \"\": none"),
      word("model.dtype", "",
           "of the weights; \"\": as stored (float16 as float32), fresh ones float32",
           {"", "float32", "bfloat16"}),
      {"model.gradient_checkpointing", false,
       "recompute layers in the backward pass: less memory, a third more time"},
      word("model.architecture", "qwen2", "of fresh weights",
           {"qwen2", "qwen3", "llama"}),
      whole("model.hidden_size", c.hidden_size, "width", 1, 1 << 20),
      whole("model.layers", c.num_hidden_layers, "decoder layers", 1, 4096),
      whole("model.heads", c.num_attention_heads, "query heads", 1, 1 << 16),
      whole("model.kv_heads", c.num_key_value_heads,
            "key and value heads; must divide heads", 1, 1 << 16),
      whole("model.head_dim", c.head_dim, "width of a head", 2, 1 << 16),
      whole("model.mlp_size", c.intermediate_size, "hidden width of the MLP", 1, 1 << 24),
      whole("model.context", c.max_position_embeddings,
            "longest prompt plus answer, in tokens", 2, 1 << 24),
      {"model.tied", c.tie_word_embeddings, "the head is the embedding"},
      real("model.rope_theta", c.rope_theta, "of the rotary positions", 1, 1e12),
      real("model.initializer_range", c.initializer_range,
           "standard deviation of fresh weights", 0, 10),
  };
}

Schema problem_keys() {
  const ProblemChoice d;
  return {
      word("data.source", d.source,
           "\"arithmetic\", or a file that python -m pion.prepare wrote"),
      word("data.kinds", d.arithmetic.kinds.front(),
           "of arithmetic, with commas: d a digit, + - themselves, ? either"),
      real("data.forget_carry", d.arithmetic.forget_carry,
           "chance that the teacher of solutions forgets the carries of a line", 0, 1),
      real("data.unboxed", d.arithmetic.unboxed, "chance that it ends without the box", 0,
           1),
      real("data.held_out", d.arithmetic.held_out, "fraction of arithmetic problems",
           1e-6, 1 - 1e-6),
      whole("data.seed", 0, "of the order of problems and of the teacher's mistakes", 0,
            0x1p53),
      word(
          "data.tokenizer", "",
          "folder whose tokenizer files are saved with the model; \"\": the model's own"),
  };
}

Schema evaluation_keys() {
  const EvaluationOptions e;
  return {
      whole("eval.problems", e.problems, "held-out problems of an evaluation", 1, kMany),
      whole("eval.rows", e.rows, "answered at once", 1, 1 << 20),
      whole("eval.max_new_tokens", e.max_new_tokens, "of an answer in evaluations", 1,
            1 << 24),
      whole("eval.shown", e.shown, "problems whose answers are kept, before and after", 0,
            1024),
      word("eval.retention", "",
           "skills that are not trained here: kinds of arithmetic with commas, or a "
           "prepared file; \"\": none"),
      whole("eval.retention_problems", e.retention_problems,
            "held-out problems that measure them", 1, kMany),
      word("eval.retention_verifier", "",
           "name of their verifier; \"\": the problems' own"),
  };
}

ModelChoice model_choice(const Recipe& r) {
  ModelChoice m{.folder = r.text("model.folder"),
                .start = r.text("model.start"),
                .fresh = fresh_config(r),
                .dtype = r.text("model.dtype"),
                .gradient_checkpointing = r.flag("model.gradient_checkpointing"),
                .threads = r.integer("threads")};
  start_recipe(r);
  if (!m.is_fresh())
    refuse_unread(r, r.schema(), kShapeKeys,
                  m.folder.empty() ? "the model is that of recipe \"" + m.start + "\""
                                   : "the model is that of " + m.folder);
  if (m.is_fresh()) {
    CausalLmConfig sized = m.fresh;
    sized.vocab_size = std::max<std::int64_t>(sized.vocab_size, 1);
    check_model_config(sized, "[model]");
  }
  return m;
}

std::string start_recipe(const Recipe& r) {
  const std::string &folder = r.text("model.folder"), &start = r.text("model.start");
  if (!folder.empty() && !start.empty())
    throw std::invalid_argument("model.folder = \"" + folder + "\" and model.start = \"" +
                                start + "\" exclude one another; give one of them");
  return start;
}

std::vector<std::string> split_kinds(const std::string& list) {
  std::vector<std::string> kinds;
  std::istringstream stream(list);
  for (std::string kind; std::getline(stream, kind, ',');) {
    std::erase(kind, ' ');
    if (!kind.empty()) kinds.push_back(kind);
  }
  return kinds;
}

ProblemChoice problem_choice(const Recipe& r) {
  ProblemChoice p;
  p.source = r.text("data.source");
  p.tokenizer = r.text("data.tokenizer");
  if (p.source != "arithmetic")
    refuse_unread(r, r.schema(), kArithmeticKeys,
                  "the problems are those of " + p.source);
  else
    refuse_unread(r, r.schema(), {"data.tokenizer"},
                  "arithmetic brings its own tokenizer");
  p.arithmetic = {.kinds = split_kinds(r.text("data.kinds")),
                  .forget_carry = r.number("data.forget_carry"),
                  .unboxed = r.number("data.unboxed"),
                  .held_out = r.number("data.held_out"),
                  .seed = static_cast<std::uint64_t>(r.integer("data.seed"))};
  return p;
}

EvaluationOptions evaluation_options(const Recipe& r) {
  if (r.text("eval.retention").empty())
    refuse_unread(r, r.schema(), {"eval.retention_verifier"}, "eval.retention is empty");
  return {.problems = r.integer("eval.problems"),
          .rows = r.integer("eval.rows"),
          .max_new_tokens = r.integer("eval.max_new_tokens"),
          .shown = r.integer("eval.shown"),
          .retention = r.text("eval.retention"),
          .retention_problems = r.integer("eval.retention_problems"),
          .retention_verifier = r.text("eval.retention_verifier")};
}

std::string problem_file(const Recipe& r) {
  const std::string& source = r.text("data.source");
  return source == "arithmetic" ? "" : source;
}

std::unique_ptr<ProblemSet> open_problems(const ProblemChoice& choice) {
  if (choice.source == "arithmetic") return make_arithmetic(choice.arithmetic);
  if (!std::filesystem::exists(choice.source))
    throw std::invalid_argument(
        "data.source: must be \"arithmetic\" or a file that python -m pion.prepare "
        "wrote, got \"" +
        shortened(choice.source) + "\", which does not exist in " +
        std::filesystem::absolute(choice.source).parent_path().string());
  return open_problem_set(choice.source);
}

std::unique_ptr<ProblemSet> open_retention(const EvaluationOptions& evaluation,
                                           const ProblemChoice& choice) {
  if (evaluation.retention.empty()) return nullptr;
  if (std::filesystem::exists(evaluation.retention))
    return open_problem_set(evaluation.retention);
  if (choice.source != "arithmetic")
    throw std::invalid_argument("eval.retention: no file \"" + evaluation.retention +
                                "\"");
  ArithmeticOptions options;
  options.kinds = split_kinds(evaluation.retention);
  options.held_out = choice.arithmetic.held_out;
  return make_arithmetic(options);
}

}  // namespace pion::lab
