// SPDX-License-Identifier: Apache-2.0

internal import Resolver
private import Synchronization
internal import Trust

/// Asks DNS where a domain's processes are, for all who want to know at the time: once for all of them, and not again
/// soon.
final class Bootstrap: Sendable {
  enum Answer: Sendable {
    /// Some processes may be here.
    case addresses([NetworkAddress])
    case failed(BlocktreeError)
  }

  /// How long an answer is good for. Whatever it is worth, asking more often would not help.
  private static let lifetime: Duration = .seconds(30)
  private static let failureLifetime: Duration = .seconds(2)

  private typealias Waiter = CheckedContinuation<Answer?, Never>

  private struct State {
    var answer: Answer?
    var expires: ContinuousClock.Instant?
    var waiters: [UInt64: Waiter] = [:]
    var waiterCount: UInt64 = 0
    /// Those that were cancelled before they began to wait.
    var cancelled: Set<UInt64> = []
    var isEnded = false

    mutating func takeWaiters() -> [Waiter] {
      defer { self.waiters = [:] }
      return Array(self.waiters.values)
    }
  }

  private let name: DNSName
  private let resolver: Resolver
  private let requests = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
  private let state = Mutex(State())

  /// - Parameter servers: `address:port` each; empty for those of the system.
  init(_ name: DNSName, servers: [String]) throws(BlocktreeError) {
    var configuration = ResolverConfiguration()
    do {
      configuration.servers = try ResolverConfiguration.servers(parsing: servers.joined(separator: ","))
    } catch {
      throw BlocktreeError.invalid("\(error)", field: "dnsServers")
    }
    self.name = name
    self.resolver = Resolver(configuration)
  }

  /// Looks up what is asked for, until it is cancelled.
  func run() async {
    for await _ in self.requests.stream {
      guard self.state.withLock({ !$0.waiters.isEmpty }) else { continue }
      let answer = await self.lookUp()
      let waiters = self.state.withLock { state in
        if case .addresses = answer {
          state.expires = .now + Self.lifetime
        } else {
          state.expires = .now + Self.failureLifetime
        }
        state.answer = answer
        return state.takeWaiters()
      }
      for waiter in waiters { waiter.resume(returning: answer) }
    }
    let waiters = self.state.withLock { state in
      state.isEnded = true
      return state.takeWaiters()
    }
    for waiter in waiters { waiter.resume(returning: nil) }
  }

  /// What DNS says, or has said lately. Nil when the time or the client is over first, or the task is cancelled.
  func ask(within limit: Duration?) async -> Answer? {
    guard let limit else { return await self.ask() }
    return await withTaskGroup(of: Answer?.self) { group in
      group.addTask { await self.ask() }
      group.addTask {
        try? await Task.sleep(for: limit)
        return nil
      }
      defer { group.cancelAll() }
      return await group.next() ?? nil
    }
  }

  private func ask() async -> Answer? {
    let id = self.state.withLock { state in
      state.waiterCount += 1
      return state.waiterCount
    }
    let answer: Answer? = await withTaskCancellationHandler {
      await withCheckedContinuation { waiter in
        let known: Answer?? = self.state.withLock { state in
          if state.isEnded || state.cancelled.remove(id) != nil { return .some(nil) }
          if let answer = state.answer, let expires = state.expires, .now < expires { return answer }
          state.waiters[id] = waiter
          return nil
        }
        if let known { waiter.resume(returning: known) } else { self.requests.continuation.yield() }
      }
    } onCancel: {
      let waiter = self.state.withLock { state in
        let waiter = state.waiters.removeValue(forKey: id)
        if waiter == nil, !state.isEnded { state.cancelled.insert(id) }
        return waiter
      }
      waiter?.resume(returning: nil)
    }
    // It may have been cancelled just when it was answered.
    self.state.withLock { _ = $0.cancelled.remove(id) }
    return answer
  }

  private func lookUp() async -> Answer {
    var random = SystemRandomNumberGenerator()
    do {
      let found = try await self.resolver.addresses(of: self.name, using: &random)
      let addresses = found.compactMap { try? NetworkAddress(host: $0.host, port: $0.port) }
      return .addresses(addresses)
    } catch {
      return .failed(
        BlocktreeError(
          code: .unavailable, reason: .peerUnreachable, message: "no process is known; \(error)",
          metadata: ["dns": self.name.description], retry: .elsewhere))
    }
  }
}
