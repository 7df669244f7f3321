// SPDX-License-Identifier: Apache-2.0
// Workers that behave, hang, die and send rubbish. Small Python programs stand for them.
#include "lab/rewards/worker.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "lab/files/python_program.h"
#include "lab/rewards/worker_verifier.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using Clock = std::chrono::steady_clock;

class Workers : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("pion_workers_" + std::to_string(::getpid()));
    std::filesystem::create_directory(folder_);
    ::setenv("PYTHONPATH", folder_.c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("PYTHONPATH");
    std::filesystem::remove_all(folder_);
  }

  // A worker that says it is ready, then runs `body` for every line: reply(request, ...).
  ConfinedCommand program(const std::string& body) {
    std::ofstream(folder_ / "program.py")
        << "import json, os, signal, sys, time\n"
           "def send(text):\n"
           "    sys.stdout.write(text + '\\n'); sys.stdout.flush()\n"
           "def reply(request, score=1.0):\n"
           "    send(json.dumps({'id': request['id'], 'score': score, 'correct': score "
           ">= 1,"
           " 'formatted': True, 'right_unformatted': False}))\n"
           "send('{\"ready\": true}')\n"
           "for line in sys.stdin:\n"
           "    request = json.loads(line)\n"
           "    response = request['response']\n"
        << body;
    return as_it_is({python_program(), (folder_ / "program.py").string()});
  }
  static ConfinedCommand as_it_is(std::vector<std::string> words) {
    return {.command = WorkerCommand(std::move(words)), .confined = false};
  }
  void module(const std::string& text) { std::ofstream(folder_ / "scoring.py") << text; }

  VerifierOptions options(double timeout_seconds = 20) {
    VerifierOptions o;
    o.timeout_seconds = timeout_seconds;
    o.failed_reward = -0.5;
    o.warn = [this](const std::string& text) { warnings_.push_back(text); };
    return o;
  }
  static std::vector<Verdict> judge(Verifier& verifier,
                                    const std::vector<std::string>& responses) {
    std::vector<Attempt> attempts;
    for (const std::string& response : responses)
      attempts.push_back({"the prompt", response, "42", R"({"n": 7})"});
    return verifier.judge(attempts);
  }

  std::filesystem::path folder_;
  std::vector<std::string> warnings_;
};

// Every third attempt goes wrong; the others keep their verdicts, one warning is given.
void expect_costs_one_attempt(Verifier& verifier,
                              const std::vector<std::string>& warnings,
                              const char* says) {
  std::vector<Attempt> attempts;
  for (int i = 0; i < 6; ++i)
    attempts.push_back({"", i % 3 == 1 ? "bad" : "good", "", ""});
  const auto verdicts = verifier.judge(attempts);
  ASSERT_EQ(verdicts.size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(verdicts[i].failed, i % 3 == 1) << i;
    EXPECT_EQ(verdicts[i].reward, i % 3 == 1 ? -0.5 : 1) << i;
  }
  EXPECT_EQ(verifier.failures(), 2);
  ASSERT_EQ(warnings.size(), 1u);
  expect_says(warnings[0], says);
  expect_says(warnings[0], "-0.5");
  expect_says(warnings[0], "attempt 1 ");
}

TEST_F(Workers, OneThatHangsIsKilledAndStartedAgain) {
  const auto verifier = make_worker_verifier(
      "x", program("    if response == 'bad': time.sleep(1000)\n    reply(request)\n"),
      options(0.2));
  expect_costs_one_attempt(*verifier, warnings_, "took longer");
}

TEST_F(Workers, OneThatIgnoresSignalsIsKilledToo) {
  const auto verifier = make_worker_verifier(
      "x",
      program("    for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
              "        signal.signal(s, signal.SIG_IGN)\n"
              "    while response == 'bad': pass\n    reply(request)\n"),
      options(0.2));
  expect_costs_one_attempt(*verifier, warnings_, "took longer");
}

TEST_F(Workers, OneThatDiesSaysItsLastWords) {
  const auto verifier = make_worker_verifier(
      "x",
      program("    if response == 'bad': sys.exit('out of ideas')\n    reply(request)\n"),
      options());
  expect_costs_one_attempt(*verifier, warnings_,
                           "status 1; its last words: out of ideas");
}

TEST_F(Workers, OneThatIsKilledIsNamedBySignal) {
  const auto verifier = make_worker_verifier(
      "x",
      program("    if response == 'bad': os.kill(os.getpid(), signal.SIGKILL)\n"
              "    reply(request)\n"),
      options());
  expect_costs_one_attempt(*verifier, warnings_, "Killed");
}

TEST_F(Workers, RubbishOfEveryKindCostsOneAttempt) {
  for (const char* rubbish :
       {"send('hello')", "send('')", "send('[1, 2]')", "send('{}')",
        "send(json.dumps({'id': request['id'] + 1, 'score': 1.0}))",
        "send('{\"id\": 1, \"score\": NaN}')",
        "send(json.dumps({'id': request['id'], 'score': '1', 'correct': True,"
        " 'formatted': True, 'right_unformatted': False}))",
        "send('x' * (1 << 21))", "sys.stdout.write('y' * (1 << 21)); sys.stdout.flush()",
        "send('[' * 100000)", "os.write(1, bytes(range(256)) + b'\\n')"}) {
    warnings_.clear();
    const auto verifier =
        make_worker_verifier("x",
                             program(std::string("    if response == 'bad': ") + rubbish +
                                     "\n    else: reply(request)\n"),
                             options());
    expect_costs_one_attempt(*verifier, warnings_, "no verdict");
  }
}

TEST_F(Workers, ADeepReplyOrAHugeNumberIsRubbish) {
  for (const std::string& line :
       {R"({"id": 7, "score": )" + std::string(100'000, '['),
        std::string(R"({"id": 1e19, "score": 1})"), std::string(R"({"id": 7.0})"),
        std::string(R"({"id": 7, "score": 1e999})")})
    EXPECT_FALSE(read_reply(line, 7).problem.empty()) << line.substr(0, 60);
}

TEST_F(Workers, ARewardBeyondFloat32CostsOneAttempt) {
  const auto verifier = make_worker_verifier(
      "x", program("    reply(request, 1e300 if response == 'bad' else 1.0)\n"),
      options());
  expect_costs_one_attempt(*verifier, warnings_, "1e+300 is no finite float32");
}

TEST_F(Workers, AnAnswerTooManyIsNeverAnothersVerdict) {
  const auto verifier = make_worker_verifier(
      "x", program("    reply(request, float(response)); reply(request, 9.0)\n"),
      options());
  std::vector<std::string> responses;
  for (int i = 0; i < 8; ++i) responses.push_back(std::to_string(i));
  const auto verdicts = judge(*verifier, responses);
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(verdicts[i].reward, verdicts[i].failed ? -0.5 : i);
  EXPECT_GT(verifier->failures(), 0);
}

TEST_F(Workers, BothPipesMayFill) {
  // writes a megabyte of errors and of rubbish before it reads what is sent to it
  const std::string large(4 << 20, 'a');
  const auto verifier = make_worker_verifier(
      "x",
      program("    sys.stderr.write('e' * (1 << 20)); sys.stderr.flush()\n"
              "    reply(request, float(len(response)))\n"),
      options());
  const auto verdicts = judge(*verifier, {large, "ab"});
  EXPECT_EQ(verdicts[0].reward, 4 << 20);
  EXPECT_EQ(verdicts[1].reward, 2);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(Workers, BytesThatAreNoTextArriveAsText) {
  const auto verifier = make_worker_verifier(
      "x", program("    reply(request, float(len(response)))\n"), options());
  const auto verdicts =
      judge(*verifier, {"\xff\xfe", "a\nb\"\\", std::string("\0x", 2), ""});
  for (const Verdict& verdict : verdicts) EXPECT_FALSE(verdict.failed);
  EXPECT_EQ(verdicts[0].reward, 2);  // two U+FFFD
  EXPECT_EQ(verdicts[1].reward, 5);
  EXPECT_EQ(verdicts[2].reward, 2);
}

TEST_F(Workers, AfterFiveFailuresInARowABatchAsksNoMore) {
  const auto verifier = make_worker_verifier(
      "x", program("    if response == 'bad': sys.exit(3)\n    reply(request)\n"),
      options());
  const auto verdicts = judge(*verifier, std::vector<std::string>(20, "bad"));
  for (const Verdict& verdict : verdicts) EXPECT_EQ(verdict.reward, -0.5);
  EXPECT_EQ(verifier->failures(), 20);
  ASSERT_EQ(warnings_.size(), 2u);
  expect_says(warnings_[0], "died");
  expect_says(warnings_[1], "not asked any more");
  const auto later = judge(*verifier, {"bad", "good", "good"});
  EXPECT_TRUE(later[1].failed) << "one question a batch while nothing else works";
  const auto again = judge(*verifier, {"good", "bad", "good"});
  EXPECT_EQ(again[0].reward, 1);
  EXPECT_EQ(again[2].reward, 1) << "an answer makes up for the failures before it";
  EXPECT_EQ(warnings_.size(), 2u);
}

TEST_F(Workers, SeveralShareABatchInOrder) {
  VerifierOptions o = options();
  o.workers = 3;
  const auto verifier = make_worker_verifier(
      "x", program("    time.sleep(0.002)\n    reply(request, float(response))\n"), o);
  std::vector<std::string> responses;
  for (int i = 0; i < 60; ++i) responses.push_back(std::to_string(i));
  const auto verdicts = judge(*verifier, responses);
  for (int i = 0; i < 60; ++i) EXPECT_EQ(verdicts[i].reward, i);
}

TEST_F(Workers, ThatDoNotStartSayWhy) {
  const auto message = [&](std::vector<std::string> command) {
    return message_of([&] { make_worker_verifier("x", as_it_is(command), options()); });
  };
  expect_says(message({"/nonexistent/python"}), "/nonexistent/python");
  expect_says(message({"false"}), "status 1");
  expect_says(message({"echo", "good morning"}), "good morning");
  expect_says(message({"echo", R"({"error": "no module"})"}), "no module");
}

TEST_F(Workers, LeaveNoProcessBehind) {
  std::string pid;
  {
    Worker worker(WorkerCommand({"python3", "-c",
                                 "import os, subprocess, sys\n"
                                 "child = subprocess.Popen(['sleep', '1000'])\n"
                                 "print(child.pid, flush=True)\n"
                                 "sys.stdin.read()"}));
    pid = worker.start(20).line;
    ASSERT_NE(pid, "");
    EXPECT_EQ(::kill(std::stoi(pid), 0), 0);
  }
  // its new parent takes the child's status some time after it was killed
  const auto deadline = Clock::now() + std::chrono::seconds(10);
  const auto lives = [&] {
    std::ifstream status("/proc/" + pid + "/stat");
    std::string word;
    status >> word >> word >> word;  // number, name, state
    return !word.empty() && word != "Z" && word != "X";
  };
  while (lives() && Clock::now() < deadline) ::usleep(10000);
  EXPECT_FALSE(lives()) << pid;
}

// ------------------------------------------------------------- a user's function, for
// real

TEST_F(Workers, AUsersFunctionMayReturnANumberOrADict) {
  module(
      "print('on import')\n"
      "import os, sys\n"
      "def score(prompt, response, reference, extra):\n"
      "    print('a user prints', response)\n"
      "    os.write(1, b'even past Python\\n')\n"
      "    assert (prompt, reference, extra) == ('the prompt', '42', {'n': 7})\n"
      "    return {'one': 1.0, 'part': 0.5, 'bool': True, 'reward': {'reward': 0.25},\n"
      "            'full': {'reward': 3, 'correct': False, 'formatted': False},\n"
      "            'correct': {'correct': True}}[response]\n");
  VerifierOptions o = options();
  o.weights = {.correct = 2, .format = 0.125};
  const auto verifier = make_verifier("scoring:score", o);
  const auto v = judge(*verifier, {"one", "part", "bool", "reward", "full", "correct"});
  const std::vector<double> rewards = {2.125, 1.125, 2.125, 0.625, 6, 2.125};
  const std::vector<bool> correct = {true, false, true, false, false, true};
  for (std::size_t i = 0; i < v.size(); ++i) {
    EXPECT_EQ(v[i].reward, rewards[i]) << i;
    EXPECT_EQ(v[i].correct, correct[i]) << i;
    EXPECT_EQ(v[i].formatted, i != 4) << i;
  }
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(Workers, AUsersFunctionMayGoWrongInManyWays) {
  module(
      "import os, sys, time\n"
      "def score(prompt, response, reference, extra):\n"
      "    if response == 'raise': raise KeyError('gone')\n"
      "    if response == 'exit': sys.exit(4)\n"
      "    if response == 'leave': os._exit(4)\n"
      "    if response == 'nan': return float('nan')\n"
      "    if response == 'none': return None\n"
      "    if response == 'dict': return {'score': 1}\n"
      "    while response == 'sleep':\n"
      "        try: time.sleep(100)\n"
      "        except Exception: pass\n"
      "    return 1.0\n");
  const auto verifier = make_verifier("scoring:score", options(0.5));
  const auto begin = Clock::now();
  const auto v = judge(*verifier, {"raise", "good", "exit", "good", "leave", "good",
                                   "nan", "none", "dict", "good", "sleep", "good"});
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(60));
  for (const int i : {1, 3, 5, 9, 11}) EXPECT_EQ(v[i].reward, 1) << i;
  for (const int i : {0, 2, 4, 6, 7, 8, 10}) EXPECT_TRUE(v[i].failed) << i;
  EXPECT_EQ(verifier->failures(), 7);
  ASSERT_EQ(warnings_.size(), 3u);  // raised, died, late: once each
  expect_says(warnings_[0], "KeyError: 'gone'");
  expect_says(warnings_[1], "died");
  expect_says(warnings_[2], "took longer");
}

TEST_F(Workers, AUsersModuleThatDoesNotImportIsAnErrorAtTheStart) {
  expect_says(message_of([&] { make_verifier("missing_module:score", options()); }),
              "No module named 'missing_module'");
  module("x = 1\n");
  expect_says(message_of([&] { make_verifier("scoring:score", options()); }),
              "no function");
  ::setenv("PION_PYTHON", "/nonexistent/python", 1);
  expect_says(message_of([&] { make_verifier("scoring:score", options()); }),
              "/nonexistent/python");
  ::unsetenv("PION_PYTHON");
}

}  // namespace
}  // namespace pion::lab
