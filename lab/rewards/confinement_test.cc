// SPDX-License-Identifier: Apache-2.0
// A user's function that tries to get out, under bubblewrap and under the filter of
// system calls alone.
#include "lab/rewards/confinement.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "lab/rewards/verifier.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBubble = "Bubblewrap";
constexpr const char* kFilter = "FilterAlone";
constexpr const char* kFree =
    "Unconfined";  // what each attempt gives where nothing hinders

class Confinement : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("pion_confined_" + std::to_string(::getpid()));
    fs::create_directory(folder_);
    ::setenv("PYTHONPATH", folder_.c_str(), 1);
    path_ = ::getenv("PATH");
    let_workers_run_unconfined(GetParam() == kFree);
    if (GetParam() == kFilter) ::setenv("PATH", folder_.c_str(), 1);  // no bwrap there
    const ConfinedCommand command = confined_python({"x"}, Permission::kPrograms, 1);
    if (GetParam() == kBubble && !command.no_bubblewrap.empty())
      GTEST_SKIP() << "bubblewrap does not work here: " << command.no_bubblewrap;
    ASSERT_EQ(command.no_bubblewrap.empty(), GetParam() != kFilter);
  }
  void TearDown() override {
    let_workers_run_unconfined(false);
    ::setenv("PATH", path_.c_str(), 1);
    ::unsetenv("PYTHONPATH");
    fs::remove_all(folder_);
  }

  static bool is_free() { return GetParam() == kFree; }

  // A module whose score is how many of its `attempts` raise nothing.
  void attempts(const std::string& texts) {
    std::ofstream(folder_ / "scoring.py")
        << "import json, os, signal, socket, subprocess, time\n"
        << "HERE = '" << folder_.string() << "'\n"
        << "def attempt(function):\n"
           "    try: function()\n"
           "    except (OSError, MemoryError): return 0\n"
           "    return 1\n"
        << "ATTEMPTS = [" << texts << "]\n"
        << "def score(prompt, response, reference, extra):\n"
           "    return sum(map(attempt, ATTEMPTS))\n";
  }
  void module(const std::string& text) {
    std::ofstream(folder_ / "scoring.py")
        << "import json, os, signal, socket, subprocess, time\n"
        << "HERE = '" << folder_.string() << "'\n"
        << text;
  }

  Verdict judge(const char* response = "", VerifierOptions options = {}) {
    options.warn = [this](const std::string& text) { warning_ = text; };
    options.failed_reward = -1;
    if (!verifier_) verifier_ = make_verifier("scoring:score", options);
    const Attempt attempt{"", response, "", ""};
    return verifier_->judge({&attempt, 1})[0];
  }

  fs::path folder_;
  std::string path_, warning_;
  std::unique_ptr<Verifier> verifier_;
};

TEST_P(Confinement, NothingIsWritten) {
  std::ofstream(folder_ / "there") << "as it was";
  attempts(
      "lambda: open(HERE + '/made', 'w').close(), lambda: open(HERE + '/there', "
      "'w').close(),"
      "lambda: os.mkdir(HERE + '/folder'), lambda: os.rename(HERE + '/there', HERE + "
      "'/b'),"
      "lambda: os.symlink('x', HERE + '/link'), lambda: os.truncate(HERE + '/there', 1),"
      "lambda: os.chmod(HERE, 0o755), lambda: os.utime(HERE),"
      "lambda: open('/dev/shm/pion_made', 'w').close(), lambda: os.remove(HERE + '/b')");
  EXPECT_EQ(judge().reward, is_free() ? 9 : 0);  // renamed: nothing is left to truncate
  if (is_free()) return (void)fs::remove("/dev/shm/pion_made");
  std::ifstream there(folder_ / "there");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(there), {}), "as it was");
  for (const char* name : {"made", "folder", "link", "b"})
    EXPECT_FALSE(fs::exists(folder_ / name)) << name;
}

TEST_P(Confinement, NobodyIsReachedBySocket) {
  const int tcp = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in here{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof here;
  ASSERT_EQ(::bind(tcp, reinterpret_cast<sockaddr*>(&here), size), 0);
  ASSERT_EQ(::listen(tcp, 4), 0);
  ASSERT_EQ(::getsockname(tcp, reinterpret_cast<sockaddr*>(&here), &size), 0);
  const int local = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un file{.sun_family = AF_UNIX};
  const std::string name = (folder_ / "socket").string();
  name.copy(file.sun_path, sizeof file.sun_path - 1);
  ASSERT_EQ(::bind(local, reinterpret_cast<sockaddr*>(&file), sizeof file), 0);
  ASSERT_EQ(::listen(local, 4), 0);
  attempts("lambda: socket.create_connection(('127.0.0.1', " +
           std::to_string(ntohs(here.sin_port)) +
           ")), lambda: socket.socket(socket.AF_UNIX).connect(HERE + '/socket')");
  EXPECT_EQ(judge().reward, is_free() ? 2 : 0);
  ::close(tcp), ::close(local);
}

TEST_P(Confinement, TheEnvironmentIsEmpty) {
  ::setenv("PION_TEST_SECRET", "do not tell", 1);
  module(
      "def score(*arguments):\n"
      "    block = open('/proc/self/environ', 'rb').read()\n"
      "    return (10 if os.environ else 0) + (1 if b'do not tell' in block else 0)\n");
  EXPECT_EQ(judge().reward, is_free() ? 11 : 0);
  ::unsetenv("PION_TEST_SECRET");
}

TEST_P(Confinement, NoFileOfOursIsOpenThere) {
  const int file = ::open((folder_ / "log").c_str(), O_CREAT | O_WRONLY, 0600);
  module(
      "def score(*arguments):\n"
      "    links = [os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64)\n"
      "             if os.path.lexists(f'/proc/self/fd/{n}')]\n"
      "    return sum(link == HERE + '/log' for link in links)\n");
  EXPECT_EQ(judge().reward, 0);
  ::close(file);
}

TEST_P(Confinement, MemoryHasALimitThatCostsOneAnswer) {
  if (is_free()) return;
  module(
      "def score(prompt, response, reference, extra):\n"
      "    return len(bytearray(int(response) << 20)) >> 20\n");
  VerifierOptions options;
  options.gigabytes = 0.5;
  EXPECT_EQ(judge("100", options).reward, 100);
  EXPECT_TRUE(judge("600").failed);
  expect_says(warning_, "MemoryError");
  expect_says(warning_, "it runs confined");
  EXPECT_EQ(judge("100").reward, 100);
}

TEST_P(Confinement, TimeHasALimitThatCostsOneAnswer) {
  module(
      "def score(prompt, response, reference, extra):\n"
      "    while response == 'bad':\n"
      "        signal.setitimer(signal.ITIMER_REAL, 0)\n"
      "    return 1.0\n");
  VerifierOptions options;
  options.timeout_seconds = 0.2;
  EXPECT_EQ(judge("good", options).reward, 1);
  EXPECT_TRUE(judge("bad").failed);
  expect_says(warning_, "took longer");
  EXPECT_EQ(judge("good").reward, 1);
}

// Whether a process runs whose command line holds `text`; waits up to ten seconds for it
// to be as `expected`, since a process appears and goes in steps.
bool runs(const std::string& text, bool expected) {
  for (int i = 0; i < 1000; ++i, ::usleep(10000)) {
    bool found = false;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::ifstream file(entry.path() / "cmdline");
      const std::string words(std::istreambuf_iterator<char>(file), {});
      found = found || words.find(text) != std::string::npos;
    }
    if (found == expected) return found;
  }
  return !expected;
}

TEST_P(Confinement, ProgramsRunWhereBubblewrapHoldsThemAndEndWithTheWorker) {
  const std::string seconds = "98765" + std::to_string(::getpid());
  module(
      "def score(prompt, response, reference, extra):\n"
      "    subprocess.Popen(['/bin/sleep', '" +
      seconds +
      "'], start_new_session=True)\n"
      "    return 1.0\n");
  const bool holds = GetParam() == kBubble;
  if (is_free()) return;  // nothing would end it
  EXPECT_EQ(judge().failed, !holds);
  if (!holds) return expect_says(warning_, "bubblewrap does not work here");
  EXPECT_TRUE(runs(seconds, true));
  verifier_.reset();
  EXPECT_FALSE(runs(seconds, false));
}

TEST_P(Confinement, OtherProcessesAreLeftAlone) {
  module(
      "def score(*arguments):\n"
      "    try: os.kill(" +
      std::to_string(::getpid()) +
      ", 0)\n"
      "    except OSError: return 0\n"
      "    return 1\n");
  EXPECT_EQ(judge().reward, is_free() ? 1 : 0);
}

TEST_P(Confinement, WithoutBothTheWorkerIsRefusedWithTheReasons) {
  // a ctypes that finds no library, before the real one on the path
  std::ofstream(folder_ / "ctypes.py")
      << "class Structure: pass\n"
         "c_uint = c_int = c_uint32 = c_uint64 = c_void_p = None\n"
         "def CDLL(name): raise OSError(name + ': no such library')\n";
  module("def score(*arguments): return 1.0\n");
  if (is_free()) {
    EXPECT_EQ(judge().reward, 1);
    return;
  }
  const std::string message = message_of([&] { judge(); });
  expect_says(message, "cannot be confined: libseccomp.so.2: no such library");
  expect_says(message, "unless --unconfined");
  if (GetParam() == kFilter) expect_says(message, "cannot run bwrap");
}

INSTANTIATE_TEST_SUITE_P(Everywhere, Confinement,
                         testing::Values(kBubble, kFilter, kFree),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace pion::lab
