// SPDX-License-Identifier: Apache-2.0

private import CAres

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// One look-up, on a thread of its own: first the services, then the addresses of all targets at once.
///
/// c-ares calls back from within the calls that are made to it, so all of this happens on that one thread, and nothing
/// here is shared.
final class Lookup {
  /// What came of the first question.
  private enum Services {
    case waiting
    case records([ServiceRecord])
    /// The one record says that the service is not offered.
    case notOffered
    case failed(status: Int32)
  }

  /// Where one target is. c-ares gets a pointer to it with the question, and gives that back with the answer.
  private final class Target {
    let name: DNSName
    let port: UInt16
    /// Nil while nothing has been answered.
    var status: Int32?
    var addresses: [ResolvedAddress] = []

    init(name: DNSName, port: UInt16) {
      self.name = name
      self.port = port
    }
  }

  private let question: Question
  private var services = Services.waiting
  private var targets: [Target] = []
  /// The sockets of c-ares, and what it waits for at each.
  private var interest: [Int32: Int16] = [:]

  private init(_ question: Question) {
    self.question = question
  }

  /// Looks up, and waits for it.
  static func run(
    _ question: Question, _ configuration: ResolverConfiguration, seed: UInt64, _ cancellation: LookupCancellation
  ) throws(LookupEnd) -> [ResolvedAddress] {
    let deadline = ContinuousClock.now + configuration.timeout
    let lookup = Lookup(question)
    // c-ares has pointers to `lookup` and its targets, which it follows only while one of its functions runs, up to the
    // end of `ares_destroy`. Until then they are kept alive.
    return try withExtendedLifetime(lookup) { () throws(LookupEnd) in
      let channel = try lookup.makeChannel(configuration)
      // Calls back for every question that has not been answered.
      defer { ares_destroy(channel) }
      return try lookup.run(on: channel, seed: seed, deadline: deadline, cancellation)
    }
  }

  private func run(
    on channel: ares_channel, seed: UInt64, deadline: ContinuousClock.Instant, _ cancellation: LookupCancellation
  ) throws(LookupEnd) -> [ResolvedAddress] {
    self.askForServices(on: channel)
    try self.wait(on: channel, until: deadline, cancellation) {
      if case .waiting = self.services { false } else { true }
    }
    var failure: Int32?
    switch self.services {
    case .waiting, .failed(status: ARES_ETIMEOUT): throw .error(.noAnswer(self.question.name))
    case .notOffered: throw .error(.notOffered(self.question.name))
    case .records(let records):
      var random = SplitMix(state: seed)
      self.targets = Self.targets(ServiceRecord.ordered(records, using: &random))
    case .failed(let status):
      // Some servers do not know of SRV records at all, or refuse to.
      failure = Self.isAbsence(status) ? nil : status
      self.targets = [Target(name: self.question.name, port: self.question.defaultPort)]
    }
    for target in self.targets { self.askForAddresses(of: target, on: channel) }
    do {
      try self.wait(on: channel, until: deadline, cancellation) {
        self.targets.allSatisfy { $0.status != nil }
      }
    } catch .error(.noAnswer) {
      // What the others have answered will do.
    }
    return try self.answer(failure)
  }

  /// Targets, each once.
  private static func targets(_ records: [ServiceRecord]) -> [Target] {
    var targets: [Target] = []
    for record in records where targets.count < Resolver.targetCountMax {
      if targets.contains(where: { $0.name == record.target && $0.port == record.port }) { continue }
      targets.append(Target(name: record.target, port: record.port))
    }
    return targets
  }

  /// What the targets have come to.
  ///
  /// - Parameter failure: what went wrong with the question for services, if something did.
  private func answer(_ failure: Int32?) throws(LookupEnd) -> [ResolvedAddress] {
    var addresses: [ResolvedAddress] = []
    for address in self.targets.flatMap(\.addresses) where !addresses.contains(address) {
      guard addresses.count < Resolver.addressCountMax else { break }
      addresses.append(address)
    }
    guard addresses.isEmpty else { return addresses }
    let name = self.question.name
    // A server that did not answer may know; so this counts for more than one that said that there is none.
    let failures = ([failure] + self.targets.map { $0.status ?? ARES_ETIMEOUT }).compactMap { $0 }
    guard let worst = failures.first(where: { !Self.isAbsence($0) }) else { throw .error(.notFound(name)) }
    throw .error(Self.error(worst, name))
  }

  private static func isAbsence(_ status: Int32) -> Bool { status == ARES_ENOTFOUND || status == ARES_ENODATA }

  private static func error(_ status: Int32, _ name: DNSName) -> ResolverError {
    switch status {
    case ARES_ETIMEOUT: .noAnswer(name)
    case ARES_ENOMEM: .unavailable(reason: self.text(status))
    default: .failed(name, reason: self.text(status))
    }
  }

  /// What c-ares says of a status: a string that it never frees.
  private static func text(_ status: Int32) -> String { String(cString: ares_strerror(status)) }

  // MARK: Asking

  private func askForServices(on channel: ares_channel) {
    let argument = Unmanaged.passUnretained(self).toOpaque()
    // Classes and types are those of RFC 1035 and RFC 2782.
    ares_query(
      channel, self.question.service.description, 1, 33,
      { argument, status, _, bytes, count in
        guard let argument else { return }
        let lookup = Unmanaged<Lookup>.fromOpaque(argument).takeUnretainedValue()
        guard status == ARES_SUCCESS, let bytes, count > 0 else {
          lookup.services = .failed(status: status == ARES_SUCCESS ? ARES_ENODATA : status)
          return
        }
        lookup.services = Lookup.services(UnsafeBufferPointer(start: bytes, count: Int(count)))
      }, argument)
  }

  /// Reads an answer with SRV records.
  private static func services(_ answer: UnsafeBufferPointer<UInt8>) -> Services {
    var first: UnsafeMutablePointer<ares_srv_reply>?
    let status = ares_parse_srv_reply(answer.baseAddress, Int32(answer.count), &first)
    guard status == ARES_SUCCESS else { return .failed(status: status) }
    // The list is ours until it is freed here, and what is taken from it is copied.
    defer { ares_free_data(first) }
    var records: [ServiceRecord] = []
    var count = 0
    var next = first
    while let record = next?.pointee, count < Resolver.recordCountMax {
      next = record.next
      count += 1
      guard let host = record.host, record.port > 0 || host.pointee == 0 else { continue }
      let target = String(cString: host)
      // RFC 2782: "." stands for a service that is decidedly not available.
      if target.isEmpty || target == "." {
        if count == 1, next == nil { return .notOffered }
        continue
      }
      // What is no name is passed over: the others may be.
      guard let name = try? DNSName(parsing: target) else { continue }
      records.append(
        ServiceRecord(priority: record.priority, weight: record.weight, port: record.port, target: name))
    }
    return records.isEmpty ? .failed(status: ARES_ENODATA) : .records(records)
  }

  private func askForAddresses(of target: Target, on channel: ares_channel) {
    var hints = ares_addrinfo_hints()
    hints.ai_family = AF_UNSPEC
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    // The dot keeps c-ares from trying the domains that the system would search.
    ares_getaddrinfo(
      channel, "\(target.name).", nil, &hints,
      { argument, status, _, result in
        // Ours from here on, also with some failures.
        defer { if let result { ares_freeaddrinfo(result) } }
        guard let argument else { return }
        let target = Unmanaged<Target>.fromOpaque(argument).takeUnretainedValue()
        target.status = status
        guard status == ARES_SUCCESS else { return }
        var next = result?.pointee.nodes
        while let node = next?.pointee, target.addresses.count < Resolver.addressCountMax {
          next = node.ai_next
          if let host = Lookup.host(node) {
            target.addresses.append(ResolvedAddress(host: host, port: target.port))
          }
        }
        if target.addresses.isEmpty { target.status = ARES_ENODATA }
      }, Unmanaged.passUnretained(target).toOpaque())
  }

  private static func host(_ node: ares_addrinfo_node) -> String? {
    guard let address = node.ai_addr, [AF_INET, AF_INET6].contains(node.ai_family) else { return nil }
    var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
    // `ai_addr` points to `ai_addrlen` bytes that belong to the list.
    guard
      getnameinfo(
        address, node.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
    else { return nil }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  // MARK: Waiting

  /// Lets c-ares do its work until a condition holds.
  private func wait(
    on channel: ares_channel, until deadline: ContinuousClock.Instant, _ cancellation: LookupCancellation,
    isOver: () -> Bool
  ) throws(LookupEnd) {
    while !isOver() {
      if cancellation.isCancelled { throw .cancelled }
      let left = deadline - .now
      guard left > .zero else { throw .error(.noAnswer(self.question.name)) }
      var polled = self.interest.map { pollfd(fd: $0.key, events: $0.value, revents: 0) }
      polled.append(pollfd(fd: cancellation.descriptor, events: Int16(POLLIN), revents: 0))
      let count = poll(&polled, nfds_t(polled.count), Self.milliseconds(channel, atMost: left))
      if count < 0, errno != EINTR { throw .error(.unavailable(reason: String(cString: strerror(errno)))) }
      guard count > 0 else {
        // For what has taken too long.
        ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD)
        continue
      }
      for socket in polled.dropLast() where socket.revents != 0 {
        // It may have closed this one meanwhile.
        guard let events = self.interest[socket.fd] else { continue }
        // Errors are noticed by whoever reads or writes.
        let failed = socket.revents & Int16(POLLERR | POLLHUP | POLLNVAL) != 0
        let isReadable = events & Int16(POLLIN) != 0 && (failed || socket.revents & Int16(POLLIN) != 0)
        let isWritable = events & Int16(POLLOUT) != 0 && (failed || socket.revents & Int16(POLLOUT) != 0)
        ares_process_fd(
          channel, isReadable ? socket.fd : ARES_SOCKET_BAD, isWritable ? socket.fd : ARES_SOCKET_BAD)
      }
    }
  }

  /// How long to wait at most: until the look-up's end, or until c-ares has something to repeat.
  private static func milliseconds(_ channel: ares_channel, atMost left: Duration) -> Int32 {
    // Without a limit of the caller's, it is this one or null.
    var storage = timeval()
    let next = withUnsafeMutablePointer(to: &storage) { storage in
      ares_timeout(channel, nil, storage).map { next in
        Duration.seconds(Int64(next.pointee.tv_sec)) + .microseconds(Int64(next.pointee.tv_usec))
      }
    }
    return self.milliseconds(min(left, next ?? left))
  }

  /// Rounded up, and at least 1: less would be no wait at all.
  private static func milliseconds(_ duration: Duration) -> Int32 {
    let (seconds, attoseconds) = duration.components
    guard seconds < 1_000_000 else { return 1_000_000_000 }
    return Int32(clamping: max(seconds * 1000 + attoseconds / 1_000_000_000_000_000 + 1, 1))
  }

  // MARK: The channel

  private func makeChannel(_ configuration: ResolverConfiguration) throws(LookupEnd) -> ares_channel {
    guard Self.libraryStatus == ARES_SUCCESS else {
      throw .error(.unavailable(reason: Self.text(Self.libraryStatus)))
    }
    var options = ares_options()
    options.flags = Int32(ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS)
    // What passes everywhere in one piece (DNS flag day 2020). Longer answers come by TCP.
    options.ednspsz = 1232
    options.timeout = Self.milliseconds(configuration.attemptTimeout)
    options.tries = Int32(clamping: max(configuration.attemptCount, 1))
    options.sock_state_cb = { argument, socket, readable, writable in
      guard let argument else { return }
      let lookup = Unmanaged<Lookup>.fromOpaque(argument).takeUnretainedValue()
      let events = (readable != 0 ? Int16(POLLIN) : 0) | (writable != 0 ? Int16(POLLOUT) : 0)
      // Without any, the socket is about to be closed.
      lookup.interest[socket] = events == 0 ? nil : events
    }
    options.sock_state_cb_data = Unmanaged.passUnretained(self).toOpaque()
    var mask =
      ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_EDNSPSZ
    var channel: ares_channel?
    // "b" is for DNS alone. c-ares copies the string before it returns.
    var lookups: [CChar] = [CChar(UInt8(ascii: "b")), 0]
    let status = lookups.withUnsafeMutableBufferPointer { lookups in
      if !configuration.servers.isEmpty {
        options.lookups = lookups.baseAddress
        mask |= ARES_OPT_LOOKUPS
      }
      return ares_init_options(&channel, &options, mask)
    }
    guard status == ARES_SUCCESS, let channel else { throw .error(.unavailable(reason: Self.text(status))) }
    if !configuration.servers.isEmpty {
      let text = configuration.servers.map(\.description).joined(separator: ",")
      let status = ares_set_servers_ports_csv(channel, text)
      guard status == ARES_SUCCESS else {
        ares_destroy(channel)
        throw .error(.unavailable(reason: Self.text(status)))
      }
    }
    return channel
  }

  /// Once for the whole program: it is not to be called by two threads at a time.
  private static let libraryStatus = ares_library_init(ARES_LIB_INIT_ALL)
}

/// Random numbers from a seed (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014). They order
/// targets, and are no secret.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var value = self.state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
