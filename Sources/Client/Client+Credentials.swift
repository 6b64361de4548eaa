// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// Whom a credential is for.
public enum CredentialKind: Hashable, Sendable {
  /// A person or program that only calls.
  case user
  /// A process that hosts these services.
  case process(services: [String])
}

extension Client {
  /// Issues a credential with the profile's authority, and puts it into the tree, where it takes effect.
  ///
  /// The private key of the authority stays here: the certificate is made and signed on this machine.
  ///
  /// - Parameters:
  ///   - path: where the credential will lie; below the authority's directory.
  ///   - request: what the receiver made, in PEM: its public keys, signed by itself.
  ///   - lifetime: how long the certificate may be used; no longer than the authority's own.
  ///   - replaces: whether a credential that is there already may be replaced, which locks out whoever holds the keys of
  ///     that one.
  public func issueCredential(
    _ kind: CredentialKind, at path: String, request: String, lifetime: Duration, replaces: Bool = false
  ) async throws -> JoinPackage {
    let path = try self.treePath(path)
    if !replaces, try await self.exists(path) {
      throw BlocktreeError(
        code: .alreadyExists, reason: .alreadyExists, message: "The name is taken.", metadata: ["path": path])
    }
    let file = try self.signCredential(kind, at: path, request: request, lifetime: lifetime)
    // What makes somebody part of a directory's cluster is stored by the cluster above.
    let response = try await self.core.routed(path, levels: 2, timeout: self.timeout, isMutation: true) { attempt in
      let (cluster, timeout) = (attempt.cluster, attempt.timeout)
      return try await cluster.withOperationID(timeout: timeout, &attempt.trace) { id, trace, wasRepeated in
        var attemptCount = 0
        defer { wasRepeated = attemptCount > 1 }
        var message = Blocktree_V1_AddCredentialRequest.with { $0.credential = Data(file.bytes) }
        if let id { message.operation = id }
        let request = message
        return try await cluster.call(timeout: timeout, &trace, isRepeatable: { id != nil }) { connection, options in
          attemptCount += 1
          return try await connection.filesystem.addCredential(request, options: options)
        }
      }
    }
    let package = try JoinPackage(response.joinPackage)
    // What the process answered must be what we signed, in our domain.
    guard package.root.verifyingKey == self.core.profile.root.verifyingKey, package.credential == file else {
      throw BlocktreeError.malformedAnswer("join_package")
    }
    return package
  }

  /// Removes a credential file, and with it all that its owner may do: it is locked out within seconds.
  ///
  /// The processes above the credential's directory are asked first, as a process that has just lost its own credential
  /// could not say that it has.
  public func removeCredential(_ path: String) async throws {
    let path = try self.treePath(path)
    _ = try await self.core.routed(path, levels: 2, timeout: self.timeout, isMutation: true) { attempt in
      let (cluster, timeout, path) = (attempt.cluster, attempt.timeout, attempt.path)
      return try await cluster.withOperationID(timeout: timeout, &attempt.trace) { id, trace, wasRepeated in
        var attemptCount = 0
        defer { wasRepeated = attemptCount > 1 }
        var message = Blocktree_V1_RemoveRequest()
        message.path = path
        message.kind = RemovalKind.file.message
        if let id { message.operation = id }
        let request = message
        return try await cluster.call(timeout: timeout, &trace, isRepeatable: { id != nil }) { connection, options in
          attemptCount += 1
          return try await connection.filesystem.remove(request, options: options)
        }
      }
    }
  }

  private func signCredential(
    _ kind: CredentialKind, at path: String, request: String, lifetime: Duration
  ) throws(BlocktreeError) -> CredentialFile {
    let profile = self.core.profile
    guard let authority = profile.authority else {
      throw BlocktreeError(
        code: .failedPrecondition, reason: .profile,
        message: "The profile has no authority; issue credentials with the profile of somebody who holds one.")
    }
    let now = Timestamp.now
    let milliseconds = UInt64(clamping: now.nanoseconds / 1_000_000)
    let issuer: CertificateAuthority
    do {
      issuer = try CertificateAuthority(
        key: authority.keys.signing, chain: authority.chain, root: profile.root, at: .now)
    } catch {
      throw BlocktreeError(error, "The profile's authority can not be used")
    }
    let parsed: CredentialRequest
    do {
      parsed = try CredentialRequest(pemRepresentation: request)
    } catch {
      throw BlocktreeError(error, "The credential request can not be used")
    }
    do {
      let (kind, services): (Credential.Kind, [Service]) =
        switch kind {
        case .user: (.user, [])
        case .process(let names): (.process, try Self.services(names))
        }
      guard let treePath = try? TreePath(parsing: path) else { throw TrustError.malformed }
      return try issuer.issueCredentialFile(
        kind, at: treePath, request: parsed, services: services, validity: Validity(from: .now, lifetime: lifetime),
        serial: milliseconds, issuedAtMilliseconds: milliseconds)
    } catch {
      if let error = error as? BlocktreeError { throw error }
      let what = "No credential can be issued for \(path) by the authority for \(issuer.path)"
      throw BlocktreeError(error as? TrustError ?? .malformed, what)
    }
  }

  private static func services(_ names: [String]) throws(BlocktreeError) -> [Service] {
    var services: [Service] = []
    for name in names {
      guard let service = try? Service(name) else {
        throw .invalid("\"\(name)\" is no name of a service.", field: "services")
      }
      services.append(service)
    }
    return services
  }
}
