// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import Testing
import Trust

/// What was written once has to be read for ever: these bytes were made by the first release of each format.
@Suite("Formats of version 1")
struct FormatTests {
  private func bytes(_ base64: String) -> [UInt8] {
    Array(Data(base64Encoded: base64, options: .ignoreUnknownCharacters) ?? Data())
  }

  @Test("of certificates, requests and credential files are read as they were written")
  func credentials() throws {
    let root = try RootCertificate(der: bytes(Samples.root))
    #expect(root.domain.description == "tla63p5v6fnt6lpu7zuax54sagfiv6ct372hm5jp7o7mrwmckvqa")
    let request = try CredentialRequest(bytes: bytes(Samples.request))
    #expect(request.bytes == bytes(Samples.request))
    let file = try CredentialFile(bytes: bytes(Samples.file))
    #expect(file.bytes == bytes(Samples.file))
    let verified = try file.verify(with: ChainVerifier(root: root), at: now)
    #expect(verified.credential.path == path("/site/node 1"))
    #expect(verified.credential.issuerPath == path("/site"))
    #expect(verified.credential.kind == .process)
    #expect(verified.credential.verifyingKey == request.verifyingKey)
    #expect(verified.services == [.filesystem, .sector])
    #expect(verified.addresses.map(\.description) == ["node1.example:4700"])
    #expect(verified.agreementKey == request.agreementKey)
    #expect(verified.marks.serial == 7)
  }

  @Test("of readcaps are opened as they were sealed")
  func readcap() throws {
    let root = try RootCertificate(der: bytes(Samples.root))
    let key = try AgreementKey(derRepresentation: bytes(Samples.agreementKey))
    let context = ReadcapContext(
      domain: root.domain, generation: 1, inode: 2, epoch: 3, recipient: path("/site/node 1"))
    let opened = try ReadcapSeal(bytes: bytes(Samples.readcap)).open(with: key, context: context)
    #expect(opened == SymmetricKey(data: Data(repeating: 5, count: 32)))
  }

  @Test("of batch signatures are verified as they were signed")
  func batch() throws {
    let signature = try BatchSignature(bytes: bytes(Samples.batchSignature))
    let key = try CredentialRequest(bytes: bytes(Samples.request)).verifyingKey
    let digest = Digest32(sha256: "abc".utf8)
    #expect(signature.verify(digest: digest, purpose: .contentPart, key: key, cache: nil))
    #expect(signature.bytes == bytes(Samples.batchSignature))
  }

  @Test("of DNS names are made as they were")
  func dnsNames() throws {
    let domain = try DomainID(parsing: "tla63p5v6fnt6lpu7zuax54sagfiv6ct372hm5jp7o7mrwmckvqa")
    let near = DomainPath(domain: domain, path: path("/site/node 1"))
    #expect(
      near.dnsName
        == "fhypr3ocativyjlk.pd36vdxld66twlqo.tla63p5v6fnt6lpu7zuax54sagfiv6ct372hm5jp7o7mrwmckvqa.blocktree.internal")
    let deep = DomainPath(domain: domain, path: path("/1/2/3/4/5/6/7/8/9/10/11"))
    #expect(
      deep.dnsName
        == """
        y4edp4wo3ojh5bio.iiyve4yljpgn7dks.7fprbxuwdxbwqbvj.7x4uiffj5p7a5kor.s6lbkntlakjabx66.\
        szt5islv5wwmcwyx.tjtcoqln46ffp74w.i33ncfkua3b7blk2.cm4t5uncbceck5tv.tqs7admvoz4yejfb.tla63\
        p5v6fnt6lpu7zuax54sagfiv6ct372hm5jp7o7mrwmckvqa.blocktree.internal
        """)
  }
}

/// Base64.
private enum Samples {
  static let root = """
    MIIDMjCCAtmgAwIBAgIUCRCsw9cb0MUm/Kyob5M9y6vJgtcwCgYIKoZIzj0EAwIwUzESMBAGA1UECgwJQmxvY2t0cmVlMT0wOwYDVQQDDDR0bGE2
    M3A1djZmbnQ2bHB1N3p1YXg1NHNhZ2ZpdjZjdDM3MmhtNWpwN283bXJ3bWNrdnFhMCAXDTI1MDYxNTE1MDE0MFoYDzk5OTkxMjMxMjM1OTU5WjBT
    MRIwEAYDVQQKDAlCbG9ja3RyZWUxPTA7BgNVBAMMNHRsYTYzcDV2NmZudDZscHU3enVheDU0c2FnZml2NmN0MzcyaG01anA3bzdtcndtY2t2cWEw
    WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASspxCWKZ39dZav0RdzKZKZsxe8/fqbwr5USeEepF9AjGa279iebsyh4P5Xnswxtmmn4sU0Epi+S4nc
    PXRmzIQco4IBhzCCAYMwDwYDVR0TAQH/BAUwAwEB/zAOBgNVHQ8BAf8EBAMCAgQwgYwGA1UdHgEB/wSBgTB/oEswSYJHdGxhNjNwNXY2Zm50Nmxw
    dTd6dWF4NTRzYWdmaXY2Y3QzNzJobTVqcDdvN21yd21ja3ZxYS5ibG9ja3RyZWUuaW50ZXJuYWyhMDAKhwgAAAAAAAAAADAihyAAAAAAAAAAAAAA
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAADCBkAYDVR0RBIGIMIGFhjpidDovL3RsYTYzcDV2NmZudDZscHU3enVheDU0c2FnZml2NmN0MzcyaG01anA3
    bzdtcndtY2t2cWEvgkd0bGE2M3A1djZmbnQ2bHB1N3p1YXg1NHNhZ2ZpdjZjdDM3MmhtNWpwN283bXJ3bWNrdnFhLmJsb2NrdHJlZS5pbnRlcm5h
    bDAdBgNVHQ4EFgQUmsHtv7XxWz8t9P5oC/eSAYqK+FMwHwYDVR0jBBgwFoAUmsHtv7XxWz8t9P5oC/eSAYqK+FMwCgYIKoZIzj0EAwIDRwAwRAIg
    bSZpiMh3sePPRfHSKJWVgPil9j5vS8rLJvwdU/AZJu8CIDb+sh2BLFQxGkvMcwBgTll7JXp9j7hFp5mgPkdxDFpV
    """

  static let request = """
    AQAAABxibG9ja3RyZWUvY3JlZGVudGlhbC1yZXF1ZXN0AAABbQEAAAAjYmxvY2t0cmVlL2NyZWRlbnRpYWwtcmVxdWVzdC9zaWduZWQAAABBBOUC
    gX1Nt8KnOz7cZSn4IsUh2ZHaz2RwGYtD8YhpvX1BAsOjn3t0B170BtYyUuvaVU1KXihoihKaduDosGg4NlMAAABBBIa4pvq7FuJIOG5jQHdvhDqX
    gcjmMUJNDpni3WgG5Pve3fRVvS+XlPwpYB53uKbA1wCzSyEs7Vcl5hiiGUI1UMABAAAAbQEAAAAeYmxvY2t0cmVlL2NyZWRlbnRpYWwtYWRkcmVz
    c2VzSDzRznMqglDWMf4bqj0NnRA/ODPv6CYYg4kVv88n+EMAAAABAAAAEm5vZGUxLmV4YW1wbGU6NDcwMAAAAAAAAAABAAAAAAAAAAEAAABFAQAA
    AAFDwhJmu4i/f6mk0E0VPfOtSACwDKGTKaAKpPLX9cczFW0GYDFFl2LcTJLvPK7Icfzrc8rGR5n+qbgcEnVjdk9hAAAARQEAAAAB8jnSw62MxPNh
    uPsc2PG0wOCPc8mJwbfxsAh0yuJTCW4lmFGMhC2I2JWoWBbfte7OExkvg3RoEmucOGO6o05y/Q==
    """

  /// A process at `/site/node 1`, certified by an authority for `/site`.
  static let file = """
    AQAAABlibG9ja3RyZWUvY3JlZGVudGlhbC1maWxlAAAGbwEAAAAPYmxvY2t0cmVlL2NoYWluAAAAAgAAAvQwggLwMIIClqADAgECAhUAvjJTzr/B
    CO877j2c8pxQ8PQKePMwCgYIKoZIzj0EAwIwUzESMBAGA1UECgwJQmxvY2t0cmVlMT0wOwYDVQQDDDQ0Mmc1eXh0M2xwNHNuM2NnaXptcW54c2dl
    bHdmM214aXNvcnlheGd3cnVxYXZoY292eDRhMCAXDTI1MDYxNTE1MDE0MFoYDzk5OTkxMjMxMjM1OTU5WjBTMRIwEAYDVQQKDAlCbG9ja3RyZWUx
    PTA7BgNVBAMMNGphNm5kdHR0ZmtiZmJ2cnI3eW4ydXBpbnR1aWQ2b2J0NTd1Y21nZWRyZWszN3R6aDdiYnEwWTATBgcqhkjOPQIBBggqhkjOPQMB
    BwNCAATlAoF9TbfCpzs+3GUp+CLFIdmR2s9kcBmLQ/GIab19QQLDo597dAde9AbWMlLr2lVNSl4oaIoSmnbg6LBoODZTo4IBQzCCAT8wDAYDVR0T
    AQH/BAIwADAOBgNVHQ8BAf8EBAMCB4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMCMIG/BgNVHREEgbcwgbSGR2J0Oi8vdGxhNjNwNXY2
    Zm50NmxwdTd6dWF4NTRzYWdmaXY2Y3QzNzJobTVqcDdvN21yd21ja3ZxYS9zaXRlL25vZGUlMjAxgmlmaHlwcjNvY2F0aXZ5amxrLnBkMzZ2ZHhs
    ZDY2dHdscW8udGxhNjNwNXY2Zm50NmxwdTd6dWF4NTRzYWdmaXY2Y3QzNzJobTVqcDdvN21yd21ja3ZxYS5ibG9ja3RyZWUuaW50ZXJuYWwwHQYD
    VR0OBBYEFEg80c5zKoJQ1jH+G6o9DZ0QPzgzMB8GA1UdIwQYMBaAFOaN3F57W/km7EZGWQbeRiLsXbLoMAoGCCqGSM49BAMCA0gAMEUCIEkrplps
    oyFSjKl2K68iCjcwoaUi4wq533VrHzrbTg6HAiEAyQsvrbQ9uCc+Rdtf4NbXKJ1xdxjufMDZfVwpU05L910AAANbMIIDVzCCAv6gAwIBAgIUR+lE
    v/1vCU7H8gPhl/S6+0TcRfwwCgYIKoZIzj0EAwIwUzESMBAGA1UECgwJQmxvY2t0cmVlMT0wOwYDVQQDDDR0bGE2M3A1djZmbnQ2bHB1N3p1YXg1
    NHNhZ2ZpdjZjdDM3MmhtNWpwN283bXJ3bWNrdnFhMB4XDTI1MDYxNTE1MDE0MFoXDTI1MDYxNjE1MDY0MFowUzESMBAGA1UECgwJQmxvY2t0cmVl
    MT0wOwYDVQQDDDQ0Mmc1eXh0M2xwNHNuM2NnaXptcW54c2dlbHdmM214aXNvcnlheGd3cnVxYXZoY292eDRhMFkwEwYHKoZIzj0CAQYIKoZIzj0D
    AQcDQgAETKMXPIy+V0Av6JkRqQrqOCbBL34UVvTV+z7MIViGwYZqJx0sbsy1dydhpDMKdrnW/4hFYdVDDELYBPSFkaQnJqOCAa4wggGqMA8GA1Ud
    EwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMIGeBgNVHR4BAf8EgZMwgZCgXDBaglhwZDM2dmR4bGQ2NnR3bHFvLnRsYTYzcDV2NmZudDZscHU3
    enVheDU0c2FnZml2NmN0MzcyaG01anA3bzdtcndtY2t2cWEuYmxvY2t0cmVlLmludGVybmFsoTAwCocIAAAAAAAAAAAwIocgAAAAAAAAAAAAAAAA
    AAAAAAAAAAAAAAAAAAAAAAAAAAAwgaUGA1UdEQSBnTCBmoY+YnQ6Ly90bGE2M3A1djZmbnQ2bHB1N3p1YXg1NHNhZ2ZpdjZjdDM3MmhtNWpwN283
    bXJ3bWNrdnFhL3NpdGWCWHBkMzZ2ZHhsZDY2dHdscW8udGxhNjNwNXY2Zm50NmxwdTd6dWF4NTRzYWdmaXY2Y3QzNzJobTVqcDdvN21yd21ja3Zx
    YS5ibG9ja3RyZWUuaW50ZXJuYWwwHQYDVR0OBBYEFOaN3F57W/km7EZGWQbeRiLsXbLoMB8GA1UdIwQYMBaAFJrB7b+18Vs/LfT+aAv3kgGKivhT
    MAoGCCqGSM49BAMCA0cAMEQCIE92oy0MbDKG8UBGgnlso3rICBuWxModXCdemrSAlVzwAiBB5LQUKRl5S2T6ycMIZsikaYA/K45BWDLdDhXHROjo
    EQAAAPsBAAAAGmJsb2NrdHJlZS9jcmVkZW50aWFsLW1hcmtzAAAAR2J0Oi8vdGxhNjNwNXY2Zm50NmxwdTd6dWF4NTRzYWdmaXY2Y3QzNzJobTVq
    cDdvN21yd21ja3ZxYS9zaXRlL25vZGUlMjAxSDzRznMqglDWMf4bqj0NnRA/ODPv6CYYg4kVv88n+EMAAABBBIa4pvq7FuJIOG5jQHdvhDqXgcjm
    MUJNDpni3WgG5Pve3fRVvS+XlPwpYB53uKbA1wCzSyEs7Vcl5hiiGUI1UMAAAAACAAAACmZpbGVzeXN0ZW0AAAAGc2VjdG9yAAAAAAAAAAcAAAAA
    AAAAAQAAAEUBAAAAAYwfuOaHfGKl/SS4fDtUhLH7QYF5tJ/Xec70R64/24xmPMsyimQgZVk+ytUC+368Rr8tX/z0RmnFFVFjMz2YLaIAAQAAAG0B
    AAAAHmJsb2NrdHJlZS9jcmVkZW50aWFsLWFkZHJlc3Nlc0g80c5zKoJQ1jH+G6o9DZ0QPzgz7+gmGIOJFb/PJ/hDAAAAAQAAABJub2RlMS5leGFt
    cGxlOjQ3MDAAAAAAAAAAAQAAAAAAAAABAAAARQEAAAABQ8ISZruIv3+ppNBNFT3zrUgAsAyhkymgCqTy1/XHMxVtBmAxRZdi3EyS7zyuyHH863PK
    xkeZ/qm4HBJ1Y3ZPYQ==
    """

  static let agreementKey = """
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXRRJxNALS4gcNOSXgbLfw2wEPqVPqkgT4Z+BAUC+W/ahRANCAASGuKb6uxbiSDhu
    Y0B3b4Q6l4HI5jFCTQ6Z4t1oBuT73t30Vb0vl5T8KWAed7imwNcAs0shLO1XJeYYohlCNVDA
    """

  static let readcap = """
    AQSo5FJZyxJV/5UqJw+5U9KMpCWO2N/M+uK2LJqyaDgzx3gmXGbz3JvCkgHGJ9WL+5LjMEfGlv+ZV9PSUJAbtzye/92oxUGkwp2JcXHr1KiuaTO3
    cEEcf6neMjTzKfiDJJZiASI54mpwoxdLjomM1FTM
    """

  /// For the SHA-256 of "abc", the third of three messages.
  static let batchSignature = """
    AQACAAOkuMeHOknV1TrwsqAgJIZIMCDZWTXXY+3E7y9gIgDY3meeSH/mBFPNaP2sHCp9EhjeMuOWhtVqOcXneULVXrTwRHXgKVmlNx/daofWicR/
    JGq2QDuRe1wzQg9mQlYHgX0=
    """
}
