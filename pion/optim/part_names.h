// SPDX-License-Identifier: Apache-2.0
// The names that model libraries give to the parts of a network. Lower case.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

namespace pion {

// Lives as long as the variable of static lifetime that it begins.
using Words = std::initializer_list<std::string_view>;

inline bool is_one_of(std::string_view text, Words words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}
inline bool contains(std::string_view text, Words words) {
  return std::any_of(words.begin(), words.end(), [text](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

inline const Words kQuery = {"q_proj", "wq",    "query",      "to_q",
                             "q",      "q_lin", "query_proj", "q_linear"};
inline const Words kKey = {"k_proj", "wk",    "key",      "to_k",
                           "k",      "k_lin", "key_proj", "k_linear"};
inline const Words kValue = {"v_proj", "wv",    "value",      "to_v",
                             "v",      "v_lin", "value_proj", "v_linear"};
inline const Words kOutput = {"o_proj",  "wo",      "out_proj",  "to_out", "o",
                              "out_lin", "c_proj",  "proj",      "dense",  "out",
                              "output",  "wo_proj", "out_linear"};
inline const Words kFused = {"c_attn",         "qkv",  "qkv_proj", "in_proj",
                             "in_proj_weight", "wqkv", "to_qkv",   "query_key_value",
                             "attn_qkv"};
// Told by themselves; the others above need an attention module around them.
inline const Words kSelfEvident = {"q_proj",
                                   "k_proj",
                                   "v_proj",
                                   "o_proj",
                                   "wq",
                                   "wk",
                                   "wv",
                                   "to_q",
                                   "to_k",
                                   "to_v",
                                   "c_attn",
                                   "qkv",
                                   "qkv_proj",
                                   "in_proj_weight",
                                   "wqkv",
                                   "to_qkv",
                                   "query_key_value",
                                   "attn_qkv",
                                   "q_lin",
                                   "k_lin",
                                   "v_lin",
                                   "query_proj",
                                   "key_proj",
                                   "value_proj"};
inline const Words kLatent = {"q_a_proj",  "q_b_proj",  "kv_a_proj_with_mqa",
                              "kv_b_proj", "kv_a_proj", "kv_proj",
                              "to_kv",     "wkv"};
// Beside the projections of a linear attention: decay rates and short convolutions of
// gated delta nets, the output gate of MiniMax's, the input gate of xLSTM's.
inline const Words kDeltaNet = {"a_log",    "dt_bias",  "conv1d",      "q_conv1d",
                                "k_conv1d", "v_conv1d", "output_gate", "igate_preact"};
inline const Words kAttentionWords = {"attn", "attention", "mha"};
inline const Words kMultilayerWords = {
    "mlp", "ffn", "feed_forward", "feedforward", "densereludense", "intermediate"};
// clang-format off
inline const Words kMultilayerLeaves = {
    "up_proj", "gate_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3", "wi", "wi_0",
    "wi_1", "c_fc", "dense_h_to_4h", "lin1", "lin2", "fc_in", "fc_out", "dense_4h_to_h",
    "w12", "up", "down", "fc_up", "fc_down", "gate", "linear_fc1", "linear_fc2",
    "input_linear", "output_linear", "time_mlp_in", "time_mlp_out", "action_time_mlp_in",
    "action_time_mlp_out"};
// clang-format on
// Of the leaves above those whose outputs are the model's width.
inline const Words kDownProjections = {"down_proj",  "w2",     "wo",
                                       "lin2",       "fc_out", "down",
                                       "fc_down",    "fc2",    "dense_4h_to_h",
                                       "linear_fc2", "c_proj", "output_linear"};
inline const Words kHeadLeaves = {"lm_head",
                                  "head",
                                  "score",
                                  "classifier",
                                  "classification_head",
                                  "embed_out",
                                  "proj_out",
                                  "qa_outputs",
                                  "value_head",
                                  "policy_head",
                                  "actor_head",
                                  "critic_head",
                                  "action_head",
                                  "v_head",
                                  "q_head",
                                  "logits",
                                  "output_projection",
                                  "output_layer",
                                  "mlm_head",
                                  "cls",
                                  "unembed",
                                  "unembedding",
                                  "to_logits",
                                  "output_head",
                                  "pi_head",
                                  "reward_head",
                                  "action_out_proj",
                                  "seq_relationship",
                                  "head_dist"};
// Heads only where no block is around them: inside one they name something else.
inline const Words kTopHeadLeaves = {
    "output", "fc",         "decoder",   "policy", "value",     "actor",
    "critic", "pi",         "vf",        "out",    "mu",        "actor_mean",
    "mean",   "action_net", "value_net", "to_out", "advantage", "q"};
inline const Words kPolicyWords = {
    "actor", "critic",    "policy",    "value", "pi",         "vf",   "qf",
    "q_net", "q_network", "advantage", "head",  "classifier", "score"};

inline bool is_head_name(std::string_view part) {
  return is_one_of(part, kHeadLeaves) || part.ends_with("_head") ||
         part.starts_with("head_");
}
// "Linear", "BitLinear", "Linear8bitLt"; not KimiLinear's "KimiLinearRMSNorm".
inline bool is_linear_type(std::string_view type) {
  const bool with_bits =
      type.starts_with("Linear") && type.size() > 6 && type[6] >= '0' && type[6] <= '9';
  return type.ends_with("Linear") || with_bits || type == "Dense" || type == "Conv1D";
}
inline bool is_convolution_type(std::string_view type) {
  return type.starts_with("Conv") && type != "Conv1D";
}

// "module Linear, name q_proj"
inline std::string told_by(const std::string& type, const std::string& what) {
  return (type.empty() ? std::string() : "module " + type + ", ") + what;
}

}  // namespace pion
