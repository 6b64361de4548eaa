// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
package import Resolver
package import Trust

/// What a person or program needs to call a domain: whom to believe, who they are, and where to begin.
///
/// It is a directory of mode 0700:
///
/// | file | holds |
/// | --- | --- |
/// | `root.pem` | the domain's root certificate |
/// | `profile.json` | version, the caller's path, processes to start from, with their addresses, and perhaps `dns` |
/// | `credential.pem` | the caller's certificate chain, its own first; absent for anonymous callers |
/// | `key.pem` | the caller's private keys, mode 0600 |
/// | `lives.json` | once a cluster was recovered: the warrants of that, as the client has heard of them |
/// | `authority.pem`, `authority-key.pem` | an authority that the caller holds, if any: chain and private key |
///
/// `credential.pem`, `key.pem` and `root.pem` are what other TLS stacks load, too.
public struct Profile: Sendable {
  /// A process to start from.
  public struct Process: Hashable, Sendable {
    /// Of its credential. Whoever answers at the addresses has to be this process.
    public var path: String
    /// `host:port`, in the order in which they are tried.
    public var addresses: [String]

    public init(path: String, addresses: [String]) {
      self.path = path
      self.addresses = addresses
    }
  }

  /// Who the caller is.
  package struct Caller: Sendable {
    package let credential: Credential
    package let keys: PrincipalKeys
  }

  /// An authority as it lies in a profile. Whether it still holds is asked when it is used.
  package struct Authority: Sendable {
    package let chain: CertificateChain
    package let keys: PrincipalKeys

    package init(chain: CertificateChain, keys: PrincipalKeys) {
      self.chain = chain
      self.keys = keys
    }
  }

  /// A process to start from, parsed.
  package struct StartingPoint: Hashable, Sendable {
    package let path: TreePath?
    package let address: NetworkAddress

    package init(path: TreePath?, address: NetworkAddress) {
      self.path = path
      self.address = address
    }
  }

  package let root: RootCertificate
  /// Nil for an anonymous caller.
  package let caller: Caller?
  package let authority: Authority?
  package let startingPoints: [StartingPoint]
  /// See ``dns``.
  package let dnsName: DNSName?
  /// Where it was read from, for messages.
  package let directory: String

  /// Reads a profile.
  public init(contentsOf directory: String) throws(ProfileError) {
    try PrivateFiles.require(directory: directory)
    let rootPath = "\(directory)/\(FileName.root)"
    do {
      self.root = try RootCertificate(pemRepresentation: PrivateFiles.readText(rootPath))
    } catch let error as TrustError {
      throw ProfileError(rootPath, .malformed(error.sentence))
    } catch {
      throw error as? ProfileError ?? ProfileError(rootPath, .malformed("\(error)"))
    }
    self.caller = try Self.readCaller(directory, root: self.root)
    self.authority = try Self.readAuthority(directory)
    let description = try ProfileDescription(readingFrom: "\(directory)/\(FileName.description)")
    if let path = description.path, let caller = self.caller, path != caller.credential.path.description {
      throw ProfileError("\(directory)/\(FileName.description)", .malformed("its path is not the credential's"))
    }
    self.startingPoints = description.startingPoints
    self.dnsName = description.dnsName
    self.directory = directory
  }

  /// What an anonymous caller needs: the domain's root certificate in PEM, and processes to start from.
  public init(anonymousWithRoot rootCertificate: String, processes: [Process]) throws(ProfileError) {
    do {
      self.root = try RootCertificate(pemRepresentation: rootCertificate)
    } catch {
      throw ProfileError("root certificate", .malformed(error.sentence))
    }
    self.caller = nil
    self.authority = nil
    self.startingPoints = try Self.startingPoints(processes, in: "addresses")
    self.dnsName = nil
    self.directory = ""
  }

  init(
    root: RootCertificate, caller: Caller?, authority: Authority?, startingPoints: [StartingPoint], dnsName: DNSName?,
    directory: String
  ) {
    self.root = root
    self.caller = caller
    self.authority = authority
    self.startingPoints = startingPoints
    self.dnsName = dnsName
    self.directory = directory
  }

  /// Where a profile is looked for when none is named: `$BLOCKTREE_PROFILE`, then `~/.config/blocktree`.
  public static func defaultDirectory(environment: [String: String]) -> String {
    if let named = environment["BLOCKTREE_PROFILE"], !named.isEmpty { return named }
    return "\(environment["HOME"] ?? "")/.config/blocktree"
  }

  /// The domain's id.
  public var domain: String { self.root.domain.description }

  /// The path of the caller's credential; nil for an anonymous one.
  public var path: String? { self.caller?.credential.path.description }

  /// When the caller's credential ends; nil for an anonymous one.
  public var expires: Timestamp? {
    self.caller.map { Timestamp(clampingSeconds: $0.credential.notAfter.timeIntervalSince1970) }
  }

  /// The same profile without the caller's identity.
  public var anonymous: Profile {
    Profile(
      root: self.root, caller: nil, authority: nil, startingPoints: self.startingPoints, dnsName: self.dnsName,
      directory: self.directory)
  }

  /// The same profile with other addresses to start from. Any process of the domain may answer there.
  public func starting(from addresses: [String]) throws(ProfileError) -> Profile {
    var points: [StartingPoint] = []
    for address in addresses {
      guard let parsed = try? NetworkAddress(parsing: address) else {
        throw ProfileError(address, .malformed("an address is host:port"))
      }
      points.append(StartingPoint(path: nil, address: parsed))
    }
    return Profile(
      root: self.root, caller: self.caller, authority: self.authority, startingPoints: points,
      dnsName: self.dnsName, directory: self.directory)
  }

  static func startingPoints(_ processes: [Process], in file: String) throws(ProfileError) -> [StartingPoint] {
    var points: [StartingPoint] = []
    for process in processes {
      guard let path = try? TreePath(parsing: process.path) else {
        throw ProfileError(file, .malformed("\"\(process.path)\" is no path"))
      }
      for address in process.addresses {
        guard let address = try? NetworkAddress(parsing: address) else {
          throw ProfileError(file, .malformed("\"\(address)\" is no address"))
        }
        points.append(StartingPoint(path: path, address: address))
      }
    }
    return points
  }

  // MARK: Files

  enum FileName {
    static let root = "root.pem"
    static let credential = "credential.pem"
    static let key = "key.pem"
    static let authority = "authority.pem"
    static let authorityKey = "authority-key.pem"
    static let description = "profile.json"
  }

  static func hasCredential(_ directory: String) -> Bool {
    PrivateFiles.exists("\(directory)/\(FileName.credential)")
  }

  private static func readCaller(_ directory: String, root: RootCertificate) throws(ProfileError) -> Caller? {
    let path = "\(directory)/\(FileName.credential)"
    let keyPath = "\(directory)/\(FileName.key)"
    guard PrivateFiles.exists(path) || PrivateFiles.exists(keyPath) else { return nil }
    let chain = try self.readChain(path)
    let keys = try self.readKeys(keyPath)
    let credential: Credential
    do {
      credential = try ChainVerifier(root: root).verify(chain, at: .now)
    } catch .expired {
      throw ProfileError(path, .untrusted("it has expired; ask an authority for a new credential"))
    } catch {
      throw ProfileError(path, .untrusted(error.sentence))
    }
    guard credential.verifyingKey == keys.signing.verifyingKey else {
      throw ProfileError(keyPath, .untrusted("it is not the key that \(FileName.credential) certifies"))
    }
    return Caller(credential: credential, keys: keys)
  }

  private static func readAuthority(_ directory: String) throws(ProfileError) -> Authority? {
    let path = "\(directory)/\(FileName.authority)"
    guard PrivateFiles.exists(path) else { return nil }
    return Authority(
      chain: try self.readChain(path), keys: try self.readKeys("\(directory)/\(FileName.authorityKey)"))
  }

  private static func readChain(_ path: String) throws(ProfileError) -> CertificateChain {
    let text = try PrivateFiles.readText(path)
    do {
      return try CertificateChain(pemRepresentation: text)
    } catch {
      throw ProfileError(path, .malformed(error.sentence))
    }
  }

  private static func readKeys(_ path: String) throws(ProfileError) -> PrincipalKeys {
    do {
      return try KeyFile.load(from: path)
    } catch {
      throw ProfileError(path, keyFile: error)
    }
  }
}

extension ProfileError {
  init(_ path: String, keyFile error: KeyFileError) {
    switch error {
    case .notFound: self.init(path, .missing)
    case .alreadyExists: self.init(path, .alreadyExists)
    case .tooOpen(let mode): self.init(path, .tooOpen(mode: mode))
    case .foreignOwner: self.init(path, .foreignOwner)
    case .notRegularFile: self.init(path, .wrongKind)
    case .malformed: self.init(path, .malformed("it holds no private keys"))
    case .system(let call, let code): self.init(path, .system(call: call, code: code, text: "error \(code)"))
    }
  }
}
