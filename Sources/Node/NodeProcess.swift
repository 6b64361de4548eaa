// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#endif

/// A `btnode` that runs as a child process: for the tour, and for tests.
package final class NodeProcess: Sendable {
  package let pid: Int32
  /// Its standard output, without blocking.
  private let output: Int32
  private let state = Mutex(State())

  private struct State {
    var received: [UInt8] = []
    /// As `waitpid` gave it.
    var status: Int32?
  }

  /// How a process ended.
  package enum End: Hashable, Sendable {
    case exited(Int32)
    case killed(signal: Int32)
  }

  /// What this process itself runs.
  package static var ownExecutable: String {
    var buffer = [CChar](repeating: 0, count: 4_096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    guard count > 0 else { return CommandLine.arguments.first ?? "btnode" }
    return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Starts a program, with no signal blocked, and SIGPIPE not ignored.
  ///
  /// - Parameters:
  ///   - environment: of the child, in the form `NAME=value`.
  ///   - log: a file that standard error is appended to.
  package init(_ executable: String, _ arguments: [String], environment: [String], log: String) throws(NodeError) {
    var ends: [Int32] = [-1, -1]
    // In place of a pipe, as it can be made such that no child of another thread inherits it, not for a moment: `pipe2` is
    // not among what Swift sees of the C library.
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw OwnerFiles.failure("socketpair", executable) }
    defer { close(ends[1]) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    // Nothing else of ours: a child that holds a listening socket keeps its address taken.
    for name in (try? OwnerFiles.list("/proc/self/fd")) ?? [] {
      if let file = Int32(name), file > STDERR_FILENO { posix_spawn_file_actions_addclose(&actions, file) }
    }
    // A child begins with the signal mask of the thread that makes it, and ours block nearly everything; and NIO has us
    // ignore SIGPIPE.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigaddset(&signals, SIGPIPE)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    var argv = ([executable] + arguments).map { strdup($0) }
    var envp = environment.map { strdup($0) }
    defer { for text in argv + envp { free(text) } }
    argv.append(nil)
    envp.append(nil)
    var pid: pid_t = 0
    let code = posix_spawn(&pid, executable, &actions, &attributes, argv, envp)
    guard code == 0 else {
      close(ends[0])
      throw .system(call: "posix_spawn", path: executable, code: code, text: String(cString: strerror(code)))
    }
    _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
    self.pid = pid
    self.output = ends[0]
  }

  /// Ends the process, if nobody has.
  deinit {
    if self.pollEnd() == nil {
      kill(self.pid, SIGKILL)
      var status: Int32 = 0
      waitpid(self.pid, &status, 0)
    }
    close(self.output)
  }

  /// The next line on standard output; nil when the process has ended, or time is up.
  package func line(within timeout: Duration) async throws -> String? {
    let deadline = ContinuousClock.now + timeout
    while true {
      if let line = self.takeLine() { return line }
      if self.pollEnd() != nil { return self.takeLine() }
      guard ContinuousClock.now < deadline else { return nil }
      try await Task.sleep(for: .milliseconds(5))
    }
  }

  private func takeLine() -> String? {
    self.state.withLock { state in
      var buffer = [UInt8](repeating: 0, count: 4_096)
      while true {
        let count = buffer.withUnsafeMutableBytes { read(self.output, $0.baseAddress, $0.count) }
        guard count > 0 else { break }
        state.received += buffer.prefix(count)
      }
      guard let end = state.received.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
      let line = String(decoding: state.received[..<end], as: UTF8.self)
      state.received.removeSubrange(...end)
      return line
    }
  }

  /// Sends a signal, unless the process has ended.
  package func signal(_ number: Int32) {
    if self.pollEnd() == nil { kill(self.pid, number) }
  }

  /// How the process ended, if it has.
  package func pollEnd() -> End? {
    let status = self.state.withLock { state -> Int32? in
      if state.status == nil {
        var status: Int32 = 0
        if waitpid(self.pid, &status, WNOHANG) == self.pid { state.status = status }
      }
      return state.status
    }
    guard let status else { return nil }
    let signal = status & 0x7f
    return signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal: signal)
  }

  /// Waits for the end; nil when time is up.
  package func end(within timeout: Duration) async throws -> End? {
    let deadline = ContinuousClock.now + timeout
    while true {
      if let end = self.pollEnd() { return end }
      guard ContinuousClock.now < deadline else { return nil }
      try await Task.sleep(for: .milliseconds(5))
    }
  }
}
