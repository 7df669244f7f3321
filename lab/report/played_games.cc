// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "lab/report/page_data.h"

namespace pion::lab::report {
namespace {

// a game's last moves: a minute and a half at ten a second
constexpr std::size_t kFrames = 900;
constexpr double kLongestSide = 200;  // cells; a larger board has no visible cells

bool is_pair(const Json& value) {
  return value.is_array() && value.size() == 2 && value[0].is_number() &&
         value[1].is_number();
}

bool is_board(const Json& board) {
  const auto side = [](const Json& value) {
    const double length = value.get<double>();
    return length >= 1 && length <= kLongestSide;
  };
  return is_pair(board) && side(board[0]) && side(board[1]);
}

bool is_frame(const Json& frame) {
  const Json &snake = member(frame, "snake"), &food = member(frame, "food");
  return snake.is_array() && std::all_of(snake.begin(), snake.end(), is_pair) &&
         (food.is_null() || is_pair(food));
}

}  // namespace

Json played_games(const Comparison& comparison, const std::map<int, RunRecord>& records) {
  Json games = Json::array();
  for (const Entrant& entrant : comparison.entrants) {
    const int run = best_run(comparison, entrant, records);
    if (run < 0) continue;
    const RunRecord& record = records.at(run);
    const Json &board = member(record.sample, "board"),
               &all = member(record.sample, "frames");
    if (text(record.sample, "kind") != "snake_game" || !is_board(board) ||
        !all.is_array())
      continue;
    Json frames = Json::array();
    const std::size_t first = all.size() > kFrames ? all.size() - kFrames : 0;
    for (std::size_t i = first; i < all.size(); ++i) {
      if (is_frame(all[i])) frames.push_back(all[i]);
    }
    if (frames.empty()) continue;
    games.push_back({{"optimizer", entrant.name},
                     {"seed", rounded(record.seed)},
                     {"board", board},
                     {"moves", all.size() - 1},
                     {"first", first},
                     {"frames", frames}});
  }
  return games;
}

}  // namespace pion::lab::report
